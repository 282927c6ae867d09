"""The errors a person can see.

HilserlError
├── ConfigError         a configuration file, key or value
├── DatasetError        a dataset on disk
├── CacheError          a built artefact (offline buffer, encoder) on disk
├── SimulationError     the MuJoCo task
├── RobotError          the arm
│   ├── BusError        its servo bus: the port, or a servo that does not answer
│   └── KinematicsError
├── TransportError      the link between actor and learner
│   └── LearnerAwayError
├── CheckpointError     a checkpoint on disk
├── TrainingError       learning went wrong (non-finite loss, no positives, ...)
└── ServiceError        Prefect server, worker or MLflow UI
    ├── ServiceAwayError
    └── ServiceRefusedError

Every message says what (value and unit), where, and how to fix it. These errors are
shown without a traceback; anything else is a defect of ours and keeps its traceback.
"""


class HilserlError(Exception):
    """Base of every error whose remedy is the user's."""


class ConfigError(HilserlError):
    """A configuration file, key or value is wrong."""


class DatasetError(HilserlError):
    """A dataset cannot be used as configured."""


class CacheError(HilserlError):
    """A built artefact on disk is missing, damaged or from other inputs."""


class SimulationError(HilserlError):
    """The simulated task cannot be built or stepped."""


class RobotError(HilserlError):
    """The arm cannot be used, or is used by somebody else."""


class BlockedError(RobotError):
    """Something is in the arm's way; it holds where it is."""


class BusError(RobotError):
    """The serial port is gone, or a servo on it does not answer."""


class KinematicsError(RobotError):
    """A pose or joint vector is outside what the arm can do."""


class TransportError(HilserlError):
    """The link between actor and learner failed or refused a peer."""


class LearnerAwayError(TransportError):
    """The actor stopped because it has no learner any more; nothing is wrong with the robot."""


class CheckpointError(HilserlError):
    """A checkpoint is missing, damaged or belongs to another model."""


class TrainingError(HilserlError):
    """Learning cannot go on, or would learn nothing."""


class ServiceError(HilserlError):
    """A local service (Prefect server, worker, MLflow UI) did not start or died."""


class ServiceAwayError(ServiceError):
    """A server does not answer."""


class ServiceRefusedError(ServiceError):
    """A server answered with an error.

    Attributes:
        code: Of HTTP.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code
