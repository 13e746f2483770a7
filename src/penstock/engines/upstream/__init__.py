"""Engines that are reached over HTTP: everything that is the same for all of them.

An adapter is three things.  A ``Reading`` that says what the server's events mean; an engine that says what
is asked; a function that opens it::

    class MyReading(Reading):
        def read(self, event):                      # one server-sent event: event.data, event.event
            chunk = msgspec.json.decode(event.data)  # a struct of its own costs less
            told = faults.told_by(chunk)
            if told is not None:                    # an error object inside the stream
                self.over = True
                raise faults.of_told(self.engine_id, told)
            events = [] if self.begun else [self.start()]
            if chunk["text"]:
                events.append(self.delta(chunk["text"], chunk["ids"]))
            if chunk["finished"]:
                self.finish_reason, self.over = "stop", True
            return events

    class MyEngine(UpstreamEngine[httpx.AsyncClient]):
        def __init__(self, url, capacity, patience):
            self.engine_id, self.model, self.capacity = "mine:model", "model", capacity
            self.upstream = Upstream(
                self.engine_id, url, lambda http: http, capacity=capacity, patience=patience
            )

        async def question(self, request, deadlines):
            body = {"prompt": request.prompt, "timeout": deadlines.remaining()}

            async def send(http):                   # what it returns does not matter
                await http.send(http.build_request("POST", f"{url}/generate", json=body), stream=True)

            return Question(send, MyReading(request, self.engine_id))

        async def call_off(self, request):          # only where closing the connection is not enough
            await self.upstream.ask(lambda http: http.send(abort_request_of(http, request), stream=True))
            return True

A vendor's client is built in the place of ``lambda http: http``, with ``http_client=http`` and no retries of
its own, and the classes it raises are given as ``sdk_errors``; one that insists on ``httpx2`` says so with
``library="httpx2"``.

What the layer does: a client for each event loop; retries with growing pauses, before the first token only;
the budgets ``connect``, ``first_token``, ``gap`` and ``total``, the last being what the call around it has
left; no redirects; errors of any shape onto the one table, without addresses and keys; a stream that is cut,
garbled, too large or silent ends as an error; a connection whose answer was not read to its end is closed and
never used again; and the call learns when its cancel has reached the server.
"""
