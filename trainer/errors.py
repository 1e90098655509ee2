"""What can stop a run.

TrainerError
├── UsageError                 the caller can mend it: exit status 2
│   ├── RecipeError            no such recipe, preset, setting or value
│   ├── DataError              missing, damaged or unfit data
│   ├── StudyError             a study that cannot be read, or is of another search
│   ├── ArtifactsError         a folder for bundles that cannot be written
│   ├── RunsError              a folder for checkpoints that cannot be written, or that another process writes
│   └── DeviceError            a device that was asked for and cannot be used
└── RunError                   the run itself failed: exit status 1
    ├── NonFiniteError         a loss or a gradient that is no number
    ├── ProcessError           another process of the run is gone
    ├── ExportError            the exported graph is not the network
    └── WriteError             a bundle or a checkpoint that could not be written whole
"""


def one_line(error: Exception) -> str:
    """Returns the start of another library's message in one line, else the name of its type."""
    return " ".join(str(error).split())[:200] or type(error).__name__


class TrainerError(Exception):
    """The message is one sentence for the person at the terminal."""

    exit_status = 1


class UsageError(TrainerError):
    exit_status = 2


class RecipeError(UsageError):
    pass


class DataError(UsageError):
    pass


class StudyError(UsageError):
    pass


class ArtifactsError(UsageError):
    pass


class RunsError(UsageError):
    pass


class DeviceError(UsageError):
    pass


class RunError(TrainerError):
    pass


class NonFiniteError(RunError):
    pass


class ProcessError(RunError):
    pass


class ExportError(RunError):
    pass


class WriteError(RunError):
    pass
