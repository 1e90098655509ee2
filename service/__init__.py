"""The model server: bundles of artifacts/ -> ONNX Runtime -> answers over HTTP.

A request goes through routes/ (HTTP), bodies/ (bytes to images, within limits), predictor.py (the transport-free core),
batcher.py (admission and batches) and session.py (ONNX Runtime). registry.py holds the models that are live;
coordinator.py decides which those are. supervisor.py and processes/ spread it over worker processes.
"""

__version__ = "0.1.0"
