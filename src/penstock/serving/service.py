"""The Open Inference Protocol over one loaded model.

A client's mistake is INVALID_ARGUMENT (or NOT_FOUND for a name), says what and how to mend it,
and changes nothing. A model that fails on a well-formed request is INTERNAL; the next request is
served. The handlers are called by the gRPC server's threads, many at once.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc

from penstock.base.errors import BadInput, NotFound, PenstockError, Unavailable
from penstock.base.log import facts, logger
from penstock.base.nearest import did_you_mean
from penstock.registry import LoadedModel, TensorSpec
from penstock.serving import checks
from penstock.serving.metrics import Answer, Metrics
from penstock.serving.protocol import open_inference_pb2 as pb
from penstock.serving.protocol.open_inference_pb2_grpc import GRPCInferenceServiceServicer
from penstock.serving.tensors import datatype, encode, must_be_raw

log = logger("serving")

LARGEST_MESSAGE = 64 << 20  # bytes, each way; gRPC's own default is 4 MiB
_CODES = {
    "bad-input": grpc.StatusCode.INVALID_ARGUMENT,
    "not-found": grpc.StatusCode.NOT_FOUND,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Under what the model is reached: the deployment's name or the model's, and its version."""

    deployment: str
    model: str
    version: int

    @property
    def reference(self) -> str:
        return f"{self.model}@{self.version}"


class InferenceService(GRPCInferenceServiceServicer):
    """One model, named twice. `close` makes it answer "not ready" and refuse new requests."""

    def __init__(self, model: LoadedModel, identity: Identity, metrics: Metrics) -> None:
        self._model = model
        self._identity = identity
        self._metrics = metrics
        self._raw_only = must_be_raw(spec.dtype for spec in model.signature.outputs)
        self._lock = threading.Lock()
        self._in_flight = 0
        self._closed = False

    # what the replica's process asks

    def close(self) -> None:
        with self._lock:
            self._closed = True

    @property
    def in_flight(self) -> int:
        with self._lock:
            return self._in_flight

    # the protocol

    def ServerLive(self, request: Any, context: Any) -> pb.ServerLiveResponse:  # noqa: N802
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: Any) -> pb.ServerReadyResponse:  # noqa: N802
        return pb.ServerReadyResponse(ready=not self._closed)

    def ModelReady(  # noqa: N802
        self, request: pb.ModelReadyRequest, context: grpc.ServicerContext
    ) -> pb.ModelReadyResponse:
        try:
            self._find(request.name, request.version)
        except NotFound:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=not self._closed)

    def ServerMetadata(self, request: Any, context: Any) -> pb.ServerMetadataResponse:  # noqa: N802
        from importlib.metadata import version

        return pb.ServerMetadataResponse(name="penstock", version=version("penstock"))

    def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: grpc.ServicerContext
    ) -> pb.ModelMetadataResponse:
        try:
            self._find(request.name, request.version)
        except NotFound as error:
            _abort(context, error)
        signature = self._model.signature
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=[str(self._identity.version)],
            platform={"onnx": "onnx_onnxv1"}.get(self._model.runtime, "pytorch"),
            inputs=[_metadata(spec) for spec in signature.inputs],
            outputs=[_metadata(spec) for spec in signature.outputs],
        )

    def ModelInfer(  # noqa: N802
        self, request: pb.ModelInferRequest, context: grpc.ServicerContext
    ) -> pb.ModelInferResponse:
        with self._metrics.request() as answer:
            try:
                self._enter()
                try:
                    return self._infer(request)
                finally:
                    self._leave()
            except PenstockError as error:
                _abort(context, error, answer)
            except Exception as error:
                log.error("a request failed", exc_info=True)
                wrapped = PenstockError(
                    f"{self._identity.reference} failed on this request: {error}",
                    "The replica's log has the traceback; other requests are not affected.",
                )
                _abort(context, wrapped, answer)

    def _infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        self._find(request.model_name, request.model_version)
        names = checks.outputs(request, self._model.signature)
        arrays = checks.inputs(request, self._model.signature)
        if self._model.runtime != "onnx":  # torch wants memory that it could write to
            arrays = {name: array.copy() for name, array in arrays.items()}
        outputs = self._model.predict(arrays)
        self._metrics.predicted(len(next(iter(arrays.values()))))
        response = pb.ModelInferResponse(
            model_name=request.model_name,
            model_version=str(self._identity.version),
            id=request.id,
        )
        raw = bool(request.raw_input_contents) or self._raw_only  # answered as it was asked
        for name in names:
            encode(response, name, outputs[name], raw)
        return response

    def _find(self, name: str, version: str) -> None:
        mine = self._identity
        if name not in (mine.deployment, mine.model):
            raise NotFound(
                f'no model "{name}" is served here',
                did_you_mean(name, {mine.deployment, mine.model}),
                model=name,
            )
        if version not in ("", str(mine.version)):
            raise NotFound(
                f'version "{version}" of "{name}" is not served here',
                f"Served is {mine.reference}; leave the version empty to take what is served.",
                model=name,
                version=version,
            )

    def _enter(self) -> None:
        with self._lock:
            if self._closed:
                raise Unavailable("this replica is stopping", "Ask again: another one answers.")
            self._in_flight += 1

    def _leave(self) -> None:
        with self._lock:
            self._in_flight -= 1


def _metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=datatype(spec.dtype), shape=spec.shape
    )


def _abort(
    context: grpc.ServicerContext, error: PenstockError, answer: Answer | None = None
) -> NoReturn:
    """End the call with the error's status; its code travels in the trailing metadata."""
    status = _CODES.get(error.code, grpc.StatusCode.INTERNAL)
    if isinstance(error, BadInput):
        status = grpc.StatusCode.INVALID_ARGUMENT
    if answer is not None:
        answer.code = status.name
        log.debug("refused", extra=facts(status=status.name, what=error.what))
    context.set_trailing_metadata((("penstock-code", error.code),))
    context.abort(status, f"{error.what}. {error.fix}" if error.fix else error.what)
    raise AssertionError("abort raises")
