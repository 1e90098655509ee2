"""The errors of the trainer.

TrainerError
├── UsageError                 the caller can correct it: exit status 2
│   ├── RecipeError            an unknown recipe, preset or setting, or an invalid value
│   ├── DataError              missing, damaged or unsuitable data
│   ├── StudyError             a study that is unreadable or belongs to another search
│   ├── ArtifactsError         the folder for bundles is not writable, or its labels differ
│   ├── ImportedModelError     a model file from elsewhere is not an image classifier that can be served
│   ├── RunsError              the folder for checkpoints is not writable, or in use
│   └── DeviceError            the requested device is not usable
└── RunError                   the run itself failed: exit status 1
    ├── NonFiniteError         a loss or a gradient is NaN or infinite
    ├── ProcessError           another process of the run has ended
    ├── ExportError            the exported graph differs from the network
    └── WriteError             a bundle or a checkpoint could not be written
"""


def one_line(error: Exception) -> str:
    """Returns the start of another library's message in one line, else the name of its type."""
    return " ".join(str(error).split())[:200] or type(error).__name__


class TrainerError(Exception):
    """The message is one sentence for the user, which says what to do."""

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


class ImportedModelError(UsageError):
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
