"""Offline: data set -> PyTorch CNN -> ONNX bundle in artifacts/."""
