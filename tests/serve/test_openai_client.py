"""The `openai` client, over a socket: models, whole answers, streams, samples, usage, and errors as it knows them."""

import threading

import pytest

from distilsql.inference.ask import ask
from distilsql.serve.service import Limits, Service
from serving import running

openai = pytest.importorskip("openai")


@pytest.fixture
def client_of(served):
    def connect(url, key="none"):
        return openai.OpenAI(base_url=f"{url}v1", api_key=key, max_retries=0)

    return connect


@pytest.fixture
def messages(examples):
    return [{"role": "user", "content": examples[0].question}]


def test_models_whole_answers_and_streams(served, client_of, messages, model, database, examples):
    with served() as url, client_of(url) as client:
        assert [each.id for each in client.models.list()] == ["teacher"]
        assert client.models.retrieve("teacher").owned_by == "distilsql"
        whole = client.chat.completions.create(model="teacher", messages=messages)
        text = whole.choices[0].message.content
        assert text == ask(model, examples[0].question, database).sql
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens

        chunks = list(
            client.chat.completions.create(
                model="teacher", messages=messages, stream=True, stream_options={"include_usage": True}
            )
        )
        pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
        assert "".join(filter(None, pieces)) == text
        assert len([piece for piece in pieces if piece]) > 3, "it comes as it is written"
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
        assert chunks[-1].usage == whole.usage


def test_lengths_samples_and_evidence(served, client_of, messages):
    with served() as url, client_of(url) as client:

        def create(**options):
            return client.chat.completions.create(model="teacher", messages=messages, **options)

        cut = create(max_tokens=2)
        assert (cut.usage.completion_tokens, cut.choices[0].finish_reason) == (2, "length")
        first, again = (create(temperature=1.5, seed=7).choices[0].message.content for _ in range(2))
        assert first == again
        others = {create(temperature=1.5, seed=seed).choices[0].message.content for seed in range(8)}
        assert len(others) > 1
        system = [{"role": "system", "content": "cheap means a price below 5"}, *messages]
        more = client.chat.completions.create(model="teacher", messages=system)
        assert more.usage.prompt_tokens > create().usage.prompt_tokens


def test_errors_are_those_that_the_client_knows(served, client_of, messages, model, database, app_of):
    with served(api_key="sesame") as url:
        with client_of(url, "wrong") as client, pytest.raises(openai.AuthenticationError, match="API key"):
            client.models.list()
        with client_of(url, "sesame") as client:
            create = client.chat.completions.create
            with pytest.raises(openai.NotFoundError, match="this server has 'teacher'") as raised:
                create(model="gpt-9", messages=messages)
            assert raised.value.code == "model_not_found"
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("gpt-9")
            for options in (
                {"n": 2},
                {"temperature": 3},
                {"logprobs": True},
                {"max_tokens": 0},
                {"tools": [{"type": "function", "function": {"name": "f"}}]},
            ):
                with pytest.raises(openai.BadRequestError, match=next(iter(options))):
                    create(model="teacher", messages=messages, **options)
            for wrong in ([{"role": "user", "content": ""}], [{"role": "user", "content": "x" * 9000}]):
                with pytest.raises(openai.BadRequestError, match="4,000 characters"):
                    create(model="teacher", messages=wrong)


def test_a_full_queue_is_a_rate_limit(model, database, app_of, messages, client_of):
    held, begun = threading.Event(), threading.Event()

    def hold(token):
        begun.set()
        held.wait(60)

    with (
        Service(model, database, name="teacher", limits=Limits(questions=1, waiting=0)) as service,
        running(app_of(service)) as url,
        client_of(url) as client,
    ):
        first = service.write(service.asker.asked("How many?"), told=hold)
        assert begun.wait(60)
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError, match="ask again"):
                client.chat.completions.create(model="teacher", messages=messages, stream=stream)
        held.set()
        assert first.done.result(60)
        assert client.chat.completions.create(model="teacher", messages=messages).choices


def test_a_reader_who_leaves_stops_the_writing(service, served, client_of, messages):
    with served() as url, client_of(url) as client:
        stream = client.chat.completions.create(model="teacher", messages=messages, stream=True)
        next(iter(stream))
        stream.close()
        # The next one is answered, whatever became of that.
        assert client.chat.completions.create(model="teacher", messages=messages).choices[0].message.content
    assert service._writer._rows == []
