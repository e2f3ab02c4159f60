"""MLflow's generic Python models over the V2 inference protocol, by KServe's model server."""

import asyncio
import concurrent.futures
import logging
import uuid

import mlflow.pyfunc
import numpy
import pandas
from kserve import InferOutput, InferResponse, Model, ModelRepository
from kserve.errors import InferenceError, InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer
from mlflow.exceptions import MlflowException

from fetch import Permanent, line

# How long requests may take to end after the server was asked to.
GRACE_SECONDS = 60

V2_TYPES = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "int32": "INT32", "bool": "BOOL"}


class PyfuncModel(Model):
    """A model, loaded."""

    def __init__(self, name, folder, threads):
        super().__init__(name)
        try:
            self.model = mlflow.pyfunc.load_model(str(folder))
        except MemoryError:
            raise
        except Exception as error:  # Whatever a flavour or the model's own code may raise.
            raise Permanent(f"load the model: {type(error).__name__}: {line(error)}") from error
        schema = self.model.metadata.get_input_schema()
        self.columns = schema.input_names() if schema and not schema.is_tensor_spec() else None
        # The event loop stays free for health checks while the model computes.
        self.pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="predict")
        self.ready = True

    async def predict(self, payload, headers=None):
        data = table(payload.inputs, self.columns) if self.columns else tensors(payload.inputs)
        try:
            result = await asyncio.get_running_loop().run_in_executor(self.pool, self.model.predict, data)
        except (MlflowException, ValueError, TypeError, KeyError) as error:
            raise InvalidInput(f"the model refuses the input: {line(error)}") from error
        except Exception as error:
            raise InferenceError(f"{type(error).__name__}: {line(error)}") from error
        outputs = [output(name, values) for name, values in named(result)]
        return InferResponse(response_id=payload.id or str(uuid.uuid4()), model_name=self.name, infer_outputs=outputs)

    def get_input_types(self):
        return described(self.model.metadata.get_input_schema())

    def get_output_types(self):
        return described(self.model.metadata.get_output_schema())


def table(inputs, columns):
    """The inputs as a table: one tensor with a column for each of the model's, or a tensor for each column."""
    if len(inputs) == 1 and inputs[0].name not in columns:
        values = inputs[0].as_numpy()
        if values.ndim != 2 or values.shape[1] != len(columns):
            names = ", ".join(columns)
            raise InvalidInput(f"the input has shape {list(values.shape)}; the model takes [-1,{len(columns)}]: {names}")
        return pandas.DataFrame(values, columns=columns)
    given = {one.name: one.as_numpy().reshape(-1) for one in inputs}
    if missing := [column for column in columns if column not in given]:
        raise InvalidInput(f"there is no input for: {', '.join(missing)}")
    return pandas.DataFrame({column: given[column] for column in columns})


def tensors(inputs):
    """The inputs as they are: an array, or several by name."""
    if len(inputs) == 1:
        return inputs[0].as_numpy()
    return {one.name: one.as_numpy() for one in inputs}


def named(result):
    """What a model returned, as arrays with names."""
    if isinstance(result, pandas.DataFrame):
        return [(str(column), result[column].to_numpy()) for column in result]
    if isinstance(result, dict):
        return [(str(name), numpy.asarray(values)) for name, values in result.items()]
    return [("predict", numpy.asarray(result))]


def output(name, values):
    datatype = V2_TYPES.get(str(values.dtype))
    if datatype is None:
        return InferOutput(name, list(values.shape), "BYTES", data=[str(value) for value in values.reshape(-1)])
    made = InferOutput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=False)
    return made


def described(schema):
    """A schema of MLflow in the words of V2."""
    if schema is None:
        return []
    types = schema.numpy_types() if not schema.is_tensor_spec() else [one.type for one in schema.inputs]
    names = schema.input_names() if schema.has_input_names() else ["predict"]
    shapes = [list(one.shape) for one in schema.inputs] if schema.is_tensor_spec() else [[-1]] * len(names)
    known = [V2_TYPES.get(str(one), "BYTES") for one in types]
    return [{"name": n, "datatype": t, "shape": s} for n, t, s in zip(names, known, shapes)]


def serve(name, folder, port, threads):
    """Serves the model until the process is asked to end."""
    repository = ModelRepository()
    repository.update(PyfuncModel(name, folder, threads))
    # Each request is counted in the metrics; a line for each would be the whole log.
    logging.getLogger("kserve.trace").setLevel(logging.WARNING)
    plane = DataPlane(model_registry=repository)
    extension = ModelRepositoryExtension(model_registry=repository)
    server = RESTServer("kserve.model_server:app", plane, extension, port, grace_period=GRACE_SECONDS)
    # KServe's own server listens on all interfaces.
    server.config.host = "127.0.0.1"
    server.config.access_log = False
    asyncio.run(server.start())
