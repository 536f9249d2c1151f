"""Requests made up from the OpenAPI description: none may end in a fault of the server."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from starlette.testclient import TestClient

schemathesis = pytest.importorskip("schemathesis")


@pytest.mark.slow
def test_no_request_that_the_description_allows_or_forbids_is_a_fault_of_ours(service, app_of):
    app = app_of(service)
    description = app._app.openapi()
    schema = schemathesis.openapi.from_dict(description)
    with TestClient(app, base_url="http://localhost") as client:
        for result in schema.get_all_operations():
            operation = result.ok()

            @settings(
                max_examples=100,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def ask(case):
                response = _sent(client, case)
                assert response.status_code < 500, (case.method, case.path, response.text)
                if response.status_code != 200:
                    assert "error" in response.json()

            ask()


def _sent(client, case):
    kwargs = case.as_transport_kwargs(base_url="http://localhost")
    return client.request(
        kwargs["method"],
        kwargs["url"],
        json=kwargs.get("json"),
        headers={key: str(value) for key, value in (kwargs.get("headers") or {}).items()},
    )
