"""One answering service and its faces: the page, the OpenAI API, MCP."""
