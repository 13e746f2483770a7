import { CallError, ConnectionFailed } from "./errors.js";
import { Inbox } from "./inbox.js";
import { errorOf } from "./outcome.js";
import { randomId } from "./request.js";
import { SharedSocket } from "./shared_socket.js";
import { dial } from "./wire.js";
const DEFAULT_PATH = "/v2/ws";
export class SocketTransport {
    settings;
    http;
    address;
    sockets = [];
    dialling = Promise.resolve();
    constructor(settings, http) {
        this.settings = settings;
        this.http = http;
        const url = new URL(settings.url);
        if (url.pathname === "/")
            url.pathname = DEFAULT_PATH;
        this.address = { url, apiKey: settings.apiKey };
    }
    async run(start, signal) {
        const inbox = await this.start(start, signal);
        try {
            return await firstOf(inbox);
        }
        finally {
            inbox.close();
        }
    }
    async open(start, signal) {
        const inbox = await this.start(start, signal);
        await firstOf(inbox);
        return inbox;
    }
    async resume(names, after, signal) {
        const { taskId, requestId } = await this.both(names);
        const [socket, inbox] = await this.attached(taskId, requestId, signal);
        socket.send({ type: "resume", task_id: requestId, after });
        return inbox;
    }
    async cancel(id) {
        for (const socket of this.sockets) {
            const name = socket.has(id);
            if (name !== undefined)
                return socket.cancel(name);
        }
        return this.http.cancel(id);
    }
    task(id) {
        return this.http.task(id);
    }
    tasks() {
        return this.http.tasks();
    }
    describe() {
        return this.http.describe();
    }
    health() {
        return this.http.health();
    }
    close() {
        for (const socket of this.sockets)
            socket.close();
        this.sockets = [];
        this.http.close();
    }
    async start(start, signal) {
        if (start.idempotencyKey !== undefined) {
            throw new CallError("an idempotencyKey travels over HTTP only; give the client an http URL", "not_implemented");
        }
        const name = start.taskId ?? randomId();
        const [socket, inbox] = await this.attached(name, undefined, signal);
        const about = { task_id: name, correlation_id: start.correlationId, more_input: start.moreInput };
        socket.send({ type: start.kind, ...start.body, ...about });
        return inbox;
    }
    async both(names) {
        const { taskId, requestId } = names;
        if (taskId !== undefined && requestId !== undefined)
            return { taskId, requestId };
        const task = await this.http.task(requestId ?? taskId ?? "");
        return { taskId: task.task_id, requestId: task.request_id };
    }
    async attached(name, alias, signal) {
        const socket = await this.shared(name);
        if (signal.aborted || !socket.open)
            throw new ConnectionFailed("the connection ended before it was used", false);
        if (!socket.takes(name))
            return this.attached(name, alias, signal);
        const inbox = new Inbox(name, alias, socket);
        socket.attach(inbox);
        signal.addEventListener("abort", () => inbox.close(), { once: true });
        return [socket, inbox];
    }
    shared(name) {
        const found = this.dialling.then(async () => {
            const open = this.sockets.find((socket) => socket.takes(name));
            if (open !== undefined)
                return open;
            const socket = new SharedSocket(this.settings.silenceS);
            socket.carry(await dial(this.address, socket));
            this.sockets = [...this.sockets.filter((each) => each.open), socket];
            return socket;
        });
        this.dialling = found.catch(() => undefined);
        return found;
    }
}
async function firstOf(inbox) {
    const frame = await inbox.first();
    if (frame.seq === undefined && frame.status === "error")
        throw errorOf(frame);
    return frame;
}
