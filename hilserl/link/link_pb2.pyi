from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    BOOL: _ClassVar[DType]
    UINT8: _ClassVar[DType]
    UINT16: _ClassVar[DType]
    UINT32: _ClassVar[DType]
    UINT64: _ClassVar[DType]
    INT8: _ClassVar[DType]
    INT16: _ClassVar[DType]
    INT32: _ClassVar[DType]
    INT64: _ClassVar[DType]
    FLOAT16: _ClassVar[DType]
    FLOAT32: _ClassVar[DType]
    FLOAT64: _ClassVar[DType]
DTYPE_UNSPECIFIED: DType
BOOL: DType
UINT8: DType
UINT16: DType
UINT32: DType
UINT64: DType
INT8: DType
INT16: DType
INT32: DType
INT64: DType
FLOAT16: DType
FLOAT32: DType
FLOAT64: DType

class Tensor(_message.Message):
    __slots__ = ("dtype", "shape", "data", "name")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    name: str
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ..., name: _Optional[str] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("episode", "step", "observation", "action", "reward", "terminated", "truncated", "is_intervention", "final_observation")
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    TERMINATED_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    IS_INTERVENTION_FIELD_NUMBER: _ClassVar[int]
    FINAL_OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    episode: int
    step: int
    observation: _containers.RepeatedCompositeFieldContainer[Tensor]
    action: Tensor
    reward: float
    terminated: bool
    truncated: bool
    is_intervention: bool
    final_observation: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, episode: _Optional[int] = ..., step: _Optional[int] = ..., observation: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., action: _Optional[_Union[Tensor, _Mapping]] = ..., reward: _Optional[float] = ..., terminated: _Optional[bool] = ..., truncated: _Optional[bool] = ..., is_intervention: _Optional[bool] = ..., final_observation: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class EpisodeReport(_message.Message):
    __slots__ = ("episode", "episode_return", "length", "is_success", "intervention_steps", "seconds", "evaluation", "weights_version", "environment_steps", "late_steps", "longest_period_s", "observation_age_s", "true_success")
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    EPISODE_RETURN_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    IS_SUCCESS_FIELD_NUMBER: _ClassVar[int]
    INTERVENTION_STEPS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_STEPS_FIELD_NUMBER: _ClassVar[int]
    LATE_STEPS_FIELD_NUMBER: _ClassVar[int]
    LONGEST_PERIOD_S_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_AGE_S_FIELD_NUMBER: _ClassVar[int]
    TRUE_SUCCESS_FIELD_NUMBER: _ClassVar[int]
    episode: int
    episode_return: float
    length: int
    is_success: bool
    intervention_steps: int
    seconds: float
    evaluation: bool
    weights_version: int
    environment_steps: int
    late_steps: int
    longest_period_s: float
    observation_age_s: float
    true_success: bool
    def __init__(self, episode: _Optional[int] = ..., episode_return: _Optional[float] = ..., length: _Optional[int] = ..., is_success: _Optional[bool] = ..., intervention_steps: _Optional[int] = ..., seconds: _Optional[float] = ..., evaluation: _Optional[bool] = ..., weights_version: _Optional[int] = ..., environment_steps: _Optional[int] = ..., late_steps: _Optional[int] = ..., longest_period_s: _Optional[float] = ..., observation_age_s: _Optional[float] = ..., true_success: _Optional[bool] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("step", "episode")
    STEP_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    step: Step
    episode: EpisodeReport
    def __init__(self, step: _Optional[_Union[Step, _Mapping]] = ..., episode: _Optional[_Union[EpisodeReport, _Mapping]] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("seq", "previous_seq", "payload")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_SEQ_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    seq: int
    previous_seq: int
    payload: bytes
    def __init__(self, seq: _Optional[int] = ..., previous_seq: _Optional[int] = ..., payload: _Optional[bytes] = ...) -> None: ...

class JournalEntry(_message.Message):
    __slots__ = ("actor_id", "robot_id", "stream_id", "seq", "payload")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    ROBOT_ID_FIELD_NUMBER: _ClassVar[int]
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    robot_id: str
    stream_id: bytes
    seq: int
    payload: bytes
    def __init__(self, actor_id: _Optional[str] = ..., robot_id: _Optional[str] = ..., stream_id: _Optional[bytes] = ..., seq: _Optional[int] = ..., payload: _Optional[bytes] = ...) -> None: ...

class Handshake(_message.Message):
    __slots__ = ("protocol_version", "run_id", "schema_hash", "architecture_hash")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_HASH_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    run_id: str
    schema_hash: str
    architecture_hash: str
    def __init__(self, protocol_version: _Optional[int] = ..., run_id: _Optional[str] = ..., schema_hash: _Optional[str] = ..., architecture_hash: _Optional[str] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("handshake", "actor_id", "robot_id", "stream_id")
    HANDSHAKE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    ROBOT_ID_FIELD_NUMBER: _ClassVar[int]
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    handshake: Handshake
    actor_id: str
    robot_id: str
    stream_id: bytes
    def __init__(self, handshake: _Optional[_Union[Handshake, _Mapping]] = ..., actor_id: _Optional[str] = ..., robot_id: _Optional[str] = ..., stream_id: _Optional[bytes] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[Envelope]
    def __init__(self, records: _Optional[_Iterable[_Union[Envelope, _Mapping]]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ActorMessage(_message.Message):
    __slots__ = ("hello", "batch", "heartbeat")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    batch: Batch
    heartbeat: Heartbeat
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class Alarm(_message.Message):
    __slots__ = ("name", "text")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    name: str
    text: str
    def __init__(self, name: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class LearnerStatus(_message.Message):
    __slots__ = ("phase", "owed_updates", "max_owed_updates", "environment_steps", "updates", "weights_version", "message", "alarms")
    class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PHASE_UNSPECIFIED: _ClassVar[LearnerStatus.Phase]
        WARMING_UP: _ClassVar[LearnerStatus.Phase]
        TRAINING: _ClassVar[LearnerStatus.Phase]
        FINISHED: _ClassVar[LearnerStatus.Phase]
        FAILED: _ClassVar[LearnerStatus.Phase]
    PHASE_UNSPECIFIED: LearnerStatus.Phase
    WARMING_UP: LearnerStatus.Phase
    TRAINING: LearnerStatus.Phase
    FINISHED: LearnerStatus.Phase
    FAILED: LearnerStatus.Phase
    PHASE_FIELD_NUMBER: _ClassVar[int]
    OWED_UPDATES_FIELD_NUMBER: _ClassVar[int]
    MAX_OWED_UPDATES_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_STEPS_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_VERSION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    phase: LearnerStatus.Phase
    owed_updates: int
    max_owed_updates: int
    environment_steps: int
    updates: int
    weights_version: int
    message: str
    alarms: _containers.RepeatedCompositeFieldContainer[Alarm]
    def __init__(self, phase: _Optional[_Union[LearnerStatus.Phase, str]] = ..., owed_updates: _Optional[int] = ..., max_owed_updates: _Optional[int] = ..., environment_steps: _Optional[int] = ..., updates: _Optional[int] = ..., weights_version: _Optional[int] = ..., message: _Optional[str] = ..., alarms: _Optional[_Iterable[_Union[Alarm, _Mapping]]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("durable_seq", "status", "max_message_bytes")
    DURABLE_SEQ_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    durable_seq: int
    status: LearnerStatus
    max_message_bytes: int
    def __init__(self, durable_seq: _Optional[int] = ..., status: _Optional[_Union[LearnerStatus, _Mapping]] = ..., max_message_bytes: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("durable_seq", "status")
    DURABLE_SEQ_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    durable_seq: int
    status: LearnerStatus
    def __init__(self, durable_seq: _Optional[int] = ..., status: _Optional[_Union[LearnerStatus, _Mapping]] = ...) -> None: ...

class LearnerMessage(_message.Message):
    __slots__ = ("welcome", "ack")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    ack: Ack
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ...) -> None: ...

class Weights(_message.Message):
    __slots__ = ("version", "content_hash", "architecture_hash", "schema_hash", "tensors", "frozen_hash", "frozen", "frozen_copies")
    class FrozenCopiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_HASH_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    FROZEN_HASH_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    FROZEN_COPIES_FIELD_NUMBER: _ClassVar[int]
    version: int
    content_hash: str
    architecture_hash: str
    schema_hash: str
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    frozen_hash: str
    frozen: _containers.RepeatedCompositeFieldContainer[Tensor]
    frozen_copies: _containers.ScalarMap[str, str]
    def __init__(self, version: _Optional[int] = ..., content_hash: _Optional[str] = ..., architecture_hash: _Optional[str] = ..., schema_hash: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., frozen_hash: _Optional[str] = ..., frozen: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., frozen_copies: _Optional[_Mapping[str, str]] = ...) -> None: ...

class WeightsRequest(_message.Message):
    __slots__ = ("known_version", "known_hash", "known_frozen_hash")
    KNOWN_VERSION_FIELD_NUMBER: _ClassVar[int]
    KNOWN_HASH_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FROZEN_HASH_FIELD_NUMBER: _ClassVar[int]
    known_version: int
    known_hash: str
    known_frozen_hash: str
    def __init__(self, known_version: _Optional[int] = ..., known_hash: _Optional[str] = ..., known_frozen_hash: _Optional[str] = ...) -> None: ...

class WeightsChunk(_message.Message):
    __slots__ = ("version", "total_bytes", "data")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    version: int
    total_bytes: int
    data: bytes
    def __init__(self, version: _Optional[int] = ..., total_bytes: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
