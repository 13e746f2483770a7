import { CallError } from "./errors.js";
export function randomId() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
export function startOf(target, input, options) {
    const named = options.idempotencyKey !== undefined ? options.taskId : (options.taskId ?? randomId());
    return {
        kind: target.kind,
        taskId: named,
        correlationId: options.correlationId ?? randomId(),
        idempotencyKey: options.idempotencyKey,
        timeout: options.timeout,
        moreInput: options.moreInput === true,
        ownName: named !== options.taskId,
        body: {
            ...(target.kind === "command" ? { command: target.name } : { workflow_id: target.name }),
            input: checked(input),
            is_stream: target.isStream,
            ...given("task_id", named),
            ...given("output_config", options.outputConfig),
            ...given("notes", options.notes),
            ...given("on_disconnect", leaving(options.onDisconnect)),
            ...given("timeout", options.timeout),
            ...given("route", options.route),
        },
    };
}
function given(name, value) {
    return value === undefined ? {} : { [name]: value };
}
function leaving(wish) {
    return typeof wish === "object" ? { grace_s: wish.graceS } : wish;
}
export function checked(input) {
    const say = (what, key) => {
        throw new CallError(`the input cannot be sent: ${key} is ${what}`, "invalid_argument");
    };
    try {
        JSON.stringify(input, (key, value) => {
            if (typeof value === "number" && !Number.isFinite(value))
                return say(String(value), key);
            if (typeof value === "function" || typeof value === "symbol")
                return say(`a ${typeof value}`, key);
            return value;
        });
    }
    catch (error) {
        if (error instanceof CallError)
            throw error;
        throw new CallError(`the input cannot be sent: ${String(error)}`, "invalid_argument");
    }
    return input;
}
