"""What the figures are compared with: the same graph behind FastAPI with an InMemorySaver, nothing durable."""

from __future__ import annotations

import sys
import uuid

import uvicorn
from fastapi import FastAPI
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from tests.support.graphs import WordsModel, one_node

app = FastAPI()
graph = one_node(WordsModel())
graph.checkpointer = InMemorySaver()


class Chat(BaseModel):
    message: str


@app.post("/chat")
async def chat(asked: Chat) -> dict[str, str]:
    config = {"configurable": {"thread_id": str(uuid.uuid4())}}
    state = await graph.ainvoke({"messages": [("user", asked.message)]}, config)
    return {"answer": state["messages"][-1].text}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
