"""A local HTTP server that speaks the OpenAI API: it answers well, late, with 429 or 500, or nonsense."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeApi:
    """Answers rewordings by a prefix and questions by `sql_for`; `faults` are given out first, one a request. What
    `before` does, it does before each answer, in a thread of that request."""

    def __init__(self):
        self.requests, self.faults, self.keys = [], [], []
        self.sql_for = lambda question: "SELECT 1"
        self.before = lambda body: None
        self.reword = lambda question: "Tell me: " + question
        self.release = threading.Event()
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.requests.append(body)
                api.keys.append(self.headers.get("Authorization"))
                fault = api.faults.pop(0) if api.faults else api.before(body)
                if fault == "late":
                    api.release.wait(30)
                    return
                if isinstance(fault, int):
                    self.send_response(fault)
                    self.send_header("Retry-After", "7")
                    self.end_headers()
                    return
                content = fault if isinstance(fault, str) else json.dumps(api.answer(body))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(content.encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def answer(self, body):
        asked = body["messages"][-1]["content"].removeprefix("Reword this question: ")
        question = asked.rpartition("Question: ")[2]
        text = self.reword(question) if question == asked else self.sql_for(question)
        return {"choices": [{"message": {"content": text}}] * body["n"], "usage": {"total_tokens": 100}}

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
