"""The Tinker protocol by bare HTTP, as tests of several files send it."""

from typing import Any

import httpx

from llm import base_model
from llm.base_model import BaseModel

PROMPT, ANSWER = list(b"colour of apple?"), list(b" red\n")
_PATIENCE = 60.0


def quick_learner() -> BaseModel:
    """Return the tiny model with weights that are large enough for an adapter to teach it a few words."""
    base = base_model.load("tiny")
    base.model.draw(0, std=0.1)
    return base


class Calls:
    """Calls of one service.

    Args:
        url: where it is.
    """

    def __init__(self, url: str) -> None:
        self.url, self._http = f"{url}/api/v1", httpx.Client(timeout=_PATIENCE)

    def post(self, path: str, status: int = 200, /, **fields: Any) -> Any:
        """Send JSON, and return what is answered with the status that is expected."""
        return self.send("POST", path, status, json=fields)

    def get(self, path: str, status: int = 200, /, **query: Any) -> Any:
        """Ask, and return what is answered with the status that is expected."""
        return self.send("GET", path, status, params=query)

    def send(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """Send anything, and return the JSON that is answered with the status that is expected."""
        answer = self._http.request(method, f"{self.url}/{path}", **options)
        assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
        return answer.json() if answer.content else None

    def result(self, request_id: str) -> Any:
        """Return what comes of a promise, by JSON."""
        for _ in range(300):
            answer = self._http.post(f"{self.url}/retrieve_future", json={"request_id": request_id})
            if answer.status_code != 408:
                return answer.json()
        raise AssertionError("it doesn't end")

    def session(self, **fields: Any) -> str:
        """Return the id of a new session."""
        return self.post("create_session", tags=[], sdk_version="0", **fields)["session_id"]

    def model(self, session: str | None = None, number: int = 0, **fields: Any) -> str:
        """Return the id of a new model."""
        session = session or self.session()
        asked = self.post("create_model", session_id=session, model_seq_id=number, **{"base_model": "tiny", **fields})
        return self.result(asked["request_id"])["model_id"]

    def save(self, model: str, number: int, name: str, sampler: bool = False, **fields: Any) -> str:
        """Return the path of a new checkpoint."""
        route = "save_weights_for_sampler" if sampler else "save_weights"
        asked = self.post(route, model_id=model, seq_id=number, path=name, **fields)
        return self.result(asked["request_id"])["path"]


def rows(*tokens: int, weight: float = 1.0) -> list[dict[str, Any]]:
    """Return one row of data, by JSON, in which each token is to be followed by itself."""
    inputs = {"target_tokens": {"data": list(tokens), "dtype": "int64"},
              "weights": {"data": [weight] * len(tokens), "dtype": "float32"}}  # fmt: skip
    return [{"model_input": {"chunks": [{"type": "encoded_text", "tokens": list(tokens)}]}, "loss_fn_inputs": inputs}]
