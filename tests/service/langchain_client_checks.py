"""LangChain's ChatOpenAI against a service: `python langchain_client_checks.py URL MODEL`, in its own environment."""

import asyncio
import sys
from importlib.metadata import version
from typing import Annotated

from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel, Field


class Place(BaseModel):
    """A place."""

    city: str = Field(max_length=4)
    days: int = Field(ge=0, le=9)


Digit = Annotated[int, Field(ge=0, le=9)]


@tool
def add(a: Digit, b: Digit) -> int:
    """Add two numbers."""
    return a + b


def main() -> int:
    """Do all checks; returns the exit code."""
    url, model = sys.argv[1:3]
    chat = ChatOpenAI(
        base_url=f"{url}/v1", api_key="tml-local", model=model, max_tokens=12, temperature=1.0, seed=3, max_retries=0,
        timeout=300, stream_usage=True,
    )  # fmt: skip
    whole = chat.invoke("Hi there")
    assert 0 < whole.usage_metadata["output_tokens"] <= 12
    chunks = list(chat.stream("Hi there"))
    assert "".join(chunk.content for chunk in chunks) == whole.content and len(chunks) > 2
    counts = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert [each["output_tokens"] for each in counts] == [whole.usage_metadata["output_tokens"]]
    assert [each.content for each in chat.batch(["Hi there"] * 2)] == [whole.content] * 2
    assert chat.bind(logprobs=True, top_logprobs=2).invoke("Hi").response_metadata["logprobs"]["content"]
    assert chat.bind(stop=["\n"]).invoke([SystemMessage("Be brief"), HumanMessage("Hi")]).type == "ai"

    async def later() -> tuple[str, str]:
        said = [chunk.content async for chunk in chat.astream("Hi there")]
        return (await chat.ainvoke("Hi there")).content, "".join(said)

    assert asyncio.run(later()) == (whole.content, whole.content)

    longer = chat.model_copy(update={"max_tokens": 400})
    for fields in ({}, {"method": "json_schema", "strict": True}, {"method": "function_calling"}):
        assert isinstance(longer.with_structured_output(Place, **fields).invoke("Where?"), Place), fields
    calls = longer.bind_tools([add], tool_choice="any", parallel_tool_calls=False)
    said = calls.invoke("2 and 3?")
    (call,) = said.tool_calls
    assert call["name"] == "add" and set(call["args"]) == {"a", "b"}
    streamed = list(calls.stream("2 and 3?"))
    together = streamed[0]
    for chunk in streamed[1:]:
        together = together + chunk
    assert [(each["name"], each["args"]) for each in together.tool_calls] == [(call["name"], call["args"])]
    result = ToolMessage("5", tool_call_id=call["id"])
    assert chat.bind_tools([add]).invoke([HumanMessage("2 and 3?"), said, result]).type == "ai"
    strict = longer.bind_tools([add], tool_choice="add", strict=True).invoke("2 and 3?")
    assert set(strict.tool_calls[0]["args"]) == {"a", "b"}
    plain = OpenAI(base_url=f"{url}/v1", api_key="tml-local", model=model, max_tokens=4)
    assert isinstance(plain.invoke("Hi"), str)
    print(f"langchain-openai {version('langchain-openai')} holds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
