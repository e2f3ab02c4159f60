"""A causal language model over OpenAI's protocol: `/openai/v1/completions`, `/openai/v1/chat/completions`, with streaming.

It runs in the environment of language models, which has PyTorch, transformers and FastAPI and cannot have KServe beside
them. Where that environment has vLLM and the replica has a GPU, vLLM's own server takes over under the same paths.

Arguments: name, folder, port, threads, share of the GPU's memory (0 without GPU).
"""

import asyncio
import concurrent.futures
import importlib.util
import json
import os
import pathlib
import sys
import threading
import time
import uuid

import fastapi
import prometheus_client
import pydantic
import uvicorn
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

# How long requests may take to end after the server was asked to, in seconds.
GRACE = 60

# How long the next token of a stream may take, in seconds.
TOKEN_TIMEOUT = 300

# What one request may generate at most.
MOST_TOKENS = 4096

REQUESTS = prometheus_client.Histogram("request_predict_seconds", "predict request latency", ["model_name"])
FIRST_TOKEN = prometheus_client.Histogram("time_to_first_token_seconds", "Time to the first token", ["model_name"])
PROMPT_TOKENS = prometheus_client.Counter("prompt_tokens", "Tokens of prompts", ["model_name"])
GENERATED_TOKENS = prometheus_client.Counter("generation_tokens", "Tokens generated", ["model_name"])


class Sampling(pydantic.BaseModel):
    """What both kinds of requests have."""

    model: str
    max_tokens: int | None = pydantic.Field(default=None, ge=1, le=MOST_TOKENS)
    temperature: float = pydantic.Field(default=1.0, ge=0, le=2)
    top_p: float = pydantic.Field(default=1.0, gt=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: dict | None = None
    # Beyond OpenAI's protocol, as in vLLM's: a load test wants answers of a known length.
    ignore_eos: bool = False
    n: int = pydantic.Field(default=1, ge=1, le=1)


class Completion(Sampling):
    """The body of a completion."""

    prompt: str | list[str] | list[int]


class Message(pydantic.BaseModel):
    """A message of a chat."""

    role: str
    content: str | list[dict]

    def text(self):
        if isinstance(self.content, str):
            return self.content
        return "".join(part.get("text", "") for part in self.content)


class Chat(Sampling):
    """The body of a chat completion."""

    messages: list[Message] = pydantic.Field(min_length=1)
    max_completion_tokens: int | None = pydantic.Field(default=None, ge=1, le=MOST_TOKENS)


class BadRequest(Exception):
    """What the client has done wrong."""


class LanguageModel:
    """A model and its tokenizer, loaded."""

    def __init__(self, name, folder, threads):
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        torch.set_num_threads(threads)
        self.name = name
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype="auto")
        self.model.to(self.device).eval()
        self.context = getattr(self.model.config, "max_position_embeddings", 2048)
        self.pool = concurrent.futures.ThreadPoolExecutor(max(1, threads), thread_name_prefix="generate")

    def encode(self, request):
        """The tokens of the prompt, and how many may follow."""
        if isinstance(request, Chat):
            messages = [{"role": message.role, "content": message.text()} for message in request.messages]
            if self.tokenizer.chat_template:
                told = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
                tokens = self.tokenizer(told, add_special_tokens=False)["input_ids"]
            else:
                # A base model was never taught roles.
                tokens = self.tokenizer("\n".join(message["content"] for message in messages))["input_ids"]
            wanted = request.max_completion_tokens or request.max_tokens or 256
        else:
            prompt = request.prompt
            if isinstance(prompt, list) and prompt and isinstance(prompt[0], str):
                if len(prompt) != 1:
                    raise BadRequest("one prompt for each request")
                prompt = prompt[0]
            tokens = prompt if isinstance(prompt, list) else self.tokenizer(prompt)["input_ids"]
            wanted = request.max_tokens or 16
        if not tokens:
            raise BadRequest("the prompt is empty")
        if any(not 0 <= token < len(self.tokenizer) for token in tokens):
            raise BadRequest(f"a token of the prompt is not between 0 and {len(self.tokenizer) - 1}")
        if len(tokens) >= self.context:
            raise BadRequest(f"the prompt has {len(tokens)} tokens, and the model's context {self.context}")
        return tokens, min(wanted, self.context - len(tokens))

    def generate(self, request, tokens, most, emit, cancelled):
        """Generates in this thread; `emit` gets each piece of text, and how many tokens there are so far."""
        import torch
        from transformers import StoppingCriteria, StoppingCriteriaList

        stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
        text = Text(self.tokenizer, stops, emit)

        class Until(StoppingCriteria):
            def __call__(self, input_ids, scores, **rest):
                ended = text.stopped or cancelled.is_set()
                return torch.full((input_ids.shape[0],), ended, device=input_ids.device, dtype=torch.bool)

        if request.seed is not None:
            torch.manual_seed(request.seed)
        sampling = request.temperature > 0
        chosen = {"temperature": request.temperature, "top_p": request.top_p} if sampling else {}
        ids = torch.tensor([tokens], device=self.device)
        pad = self.tokenizer.pad_token_id
        with torch.inference_mode():
            self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=most,
                min_new_tokens=most if request.ignore_eos else None,
                do_sample=sampling,
                pad_token_id=pad if pad is not None else self.tokenizer.eos_token_id,
                streamer=text,
                stopping_criteria=StoppingCriteriaList([Until()]),
                **chosen,
            )
        return len(text.tokens), "length" if len(text.tokens) >= most and not text.stopped else "stop"


class Text:
    """What is generated, as text: a streamer in the sense of transformers."""

    def __init__(self, tokenizer, stops, emit):
        self.tokenizer, self.stops, self.emit = tokenizer, stops, emit
        self.tokens, self.sent, self.prompt, self.stopped = [], 0, True, False
        # What may be the beginning of a stop sequence is kept back.
        self.hold = max((len(stop) for stop in stops), default=1) - 1

    def put(self, value):
        if self.prompt:
            self.prompt = False
            return
        self.tokens += value.reshape(-1).tolist()
        self.say(self.hold, last=False)

    def end(self):
        self.say(0, last=True)

    def say(self, hold, last):
        text = self.tokenizer.decode(self.tokens, skip_special_tokens=True)
        if self.stopped or (text.endswith("\ufffd") and not last):
            # A character may have more bytes than the tokens so far.
            return
        ends = [at for stop in self.stops if stop and (at := text.find(stop)) >= 0]
        self.stopped = bool(ends)
        until = min(ends) if ends else len(text) - hold
        if until > self.sent:
            self.emit(text[self.sent : until], len(self.tokens))
            self.sent = until


class Answer:
    """One answer under way: its pieces, and how it ended."""

    def __init__(self, model, request):
        self.model, self.request = model, request
        self.tokens, self.most = model.encode(request)
        self.cancelled, self.begin = threading.Event(), time.monotonic()
        self.loop, self.said = asyncio.get_running_loop(), asyncio.Queue()
        self.count, self.reason, self.first = 0, None, None
        self.id = f"{'chatcmpl' if self.is_chat else 'cmpl'}-{uuid.uuid4().hex}"
        self.created = int(time.time())
        PROMPT_TOKENS.labels(model.name).inc(len(self.tokens))

    @property
    def is_chat(self):
        return isinstance(self.request, Chat)

    def work(self):
        """Runs in a thread of the pool."""

        def say(*what):
            self.loop.call_soon_threadsafe(self.said.put_nowait, what)

        try:
            if not self.cancelled.is_set():
                emit = lambda piece, count: say("text", piece, count)
                say("end", *self.model.generate(self.request, self.tokens, self.most, emit, self.cancelled))
        except Exception as error:
            say("error", error, None)

    async def texts(self):
        """The pieces of text as they come."""
        self.loop.run_in_executor(self.model.pool, self.work)
        try:
            while True:
                kind, first, second = await asyncio.wait_for(self.said.get(), TOKEN_TIMEOUT)
                if kind == "error":
                    raise first
                if kind == "end":
                    self.count, self.reason = first, second
                    return
                self.count = second
                self.see_first()
                yield first
        finally:
            self.cancelled.set()
            GENERATED_TOKENS.labels(self.model.name).inc(self.count)
            REQUESTS.labels(self.model.name).observe(time.monotonic() - self.begin)

    def see_first(self):
        if self.first is None:
            self.first = time.monotonic() - self.begin
            FIRST_TOKEN.labels(self.model.name).observe(self.first)

    def usage(self):
        prompt = len(self.tokens)
        return {"prompt_tokens": prompt, "completion_tokens": self.count, "total_tokens": prompt + self.count}

    def frame(self, kind, choices, **more):
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model.name, "choices": choices, **more}

    async def whole(self):
        text = "".join([piece async for piece in self.texts()])
        end = {"index": 0, "finish_reason": self.reason, "logprobs": None}
        if self.is_chat:
            message = {"role": "assistant", "content": text}
            return self.frame("chat.completion", [{**end, "message": message}], usage=self.usage())
        return self.frame("text_completion", [{**end, "text": text}], usage=self.usage())

    async def stream(self):
        """Server-sent events, as OpenAI has them."""
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        event = lambda frame: f"data: {json.dumps(frame)}\n\n"

        def choice(text, reason=None):
            part = {"delta": {"content": text} if reason is None else {}} if self.is_chat else {"text": text}
            return [{"index": 0, "finish_reason": reason, "logprobs": None, **part}]

        try:
            if self.is_chat:
                start = {"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": ""}}
                yield event(self.frame(kind, [start]))
            async for piece in self.texts():
                yield event(self.frame(kind, choice(piece)))
            yield event(self.frame(kind, choice("", self.reason)))
            if (self.request.stream_options or {}).get("include_usage"):
                yield event(self.frame(kind, [], usage=self.usage()))
            yield "data: [DONE]\n\n"
        except Exception as error:
            # The status is sent already.
            yield event({"error": {"message": f"{type(error).__name__}: {error}", "type": "server_error"}})


def application(model):
    """The routes."""
    app = fastapi.FastAPI(title="causal language model", docs_url=None, redoc_url=None)

    def refused(status, message, kind):
        return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": status}}, status)

    async def answer(request):
        if request.model != model.name:
            return refused(404, f"there is no model `{request.model}` here, but `{model.name}`", "not_found_error")
        try:
            made = Answer(model, request)
        except BadRequest as error:
            return refused(400, str(error), "invalid_request_error")
        if request.stream:
            return StreamingResponse(made.stream(), media_type="text/event-stream")
        return JSONResponse(await made.whole())

    @app.post("/openai/v1/completions")
    async def completions(request: Completion):
        return await answer(request)

    @app.post("/openai/v1/chat/completions")
    async def chat(request: Chat):
        return await answer(request)

    @app.get("/openai/v1/models")
    async def models():
        return {"object": "list", "data": [{"id": model.name, "object": "model", "created": 0, "owned_by": "taskrun"}]}

    @app.get("/v2/health/live")
    @app.get("/v2/health/ready")
    async def ready():
        return {"ready": True}

    @app.get(f"/v2/models/{model.name}/ready")
    async def model_ready():
        return {"name": model.name, "ready": True}

    @app.get(f"/v2/models/{model.name}")
    async def metadata():
        return {"name": model.name, "versions": None, "platform": "transformers", "inputs": [], "outputs": []}

    @app.get("/metrics")
    async def metrics():
        return PlainTextResponse(prometheus_client.generate_latest(), media_type=prometheus_client.CONTENT_TYPE_LATEST)

    @app.exception_handler(fastapi.exceptions.RequestValidationError)
    async def invalid(_request, error):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        return refused(400, f"{place}: {first['msg']}", "invalid_request_error")

    @app.exception_handler(Exception)
    async def failed(_request, error):
        return refused(500, f"{type(error).__name__}: {error}", "server_error")

    return app


def become_vllm(name, folder, port, share):
    """vLLM's server, under the paths that this one has."""
    words = [sys.executable, "-s", "-m", "vllm.entrypoints.openai.api_server", "--model", folder]
    words += ["--served-model-name", name, "--host", "127.0.0.1", "--port", port]
    words += ["--gpu-memory-utilization", share, "--middleware", "vllm_paths.Paths"]
    here = str(pathlib.Path(__file__).parent)
    os.execve(sys.executable, words, {**os.environ, "PYTHONPATH": here})


def main():
    name, folder, port, threads, share = sys.argv[1:]
    if not (pathlib.Path(folder) / "config.json").is_file():
        sys.stderr.write("error: the model has no config.json: it is no language model in Hugging Face's format\n")
        sys.exit(os.EX_CONFIG)
    if float(share) > 0 and importlib.util.find_spec("vllm"):
        become_vllm(name, folder, port, share)
    runner = "transformers on a GPU (vLLM is not there)" if float(share) > 0 else "transformers on the processor"
    sys.stdout.write(f"serving {name} with {runner}\n")
    try:
        model = LanguageModel(name, folder, int(threads))
    except MemoryError:
        raise
    except Exception as error:  # Whatever transformers or the model's own files may raise.
        sys.stderr.write(f"error: load the model: {type(error).__name__}: {' '.join(str(error).split())[:400]}\n")
        sys.exit(os.EX_CONFIG)
    server = uvicorn.Config(
        application(model), host="127.0.0.1", port=int(port), access_log=False, log_level="warning",
        timeout_graceful_shutdown=GRACE,
    )
    uvicorn.Server(server).run()


if __name__ == "__main__":
    main()
