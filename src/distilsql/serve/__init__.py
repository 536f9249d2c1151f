"""One answering service and its interfaces: the page, the OpenAI API, MCP."""
