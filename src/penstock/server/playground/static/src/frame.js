import { RemoteProtocolError } from "./errors.js";
const SHOWN = 120;
export function parseFrame(text) {
    let value;
    try {
        value = JSON.parse(text);
    }
    catch {
        value = undefined;
    }
    if (typeof value === "object" && value !== null && typeof value.type === "string") {
        return value;
    }
    throw new RemoteProtocolError(`the server sent ${excerpt(text)}, which is no frame`);
}
export function endsCall(frame) {
    const { status, seq } = frame;
    return seq !== undefined && (status === "completed" || status === "error" || status === "cancelled");
}
export function excerpt(text) {
    return text === "" ? "no body" : JSON.stringify(text.slice(0, SHOWN));
}
