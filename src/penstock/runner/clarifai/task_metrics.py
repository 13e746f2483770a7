"""How a task of annotation goes, for those who watch it."""

from __future__ import annotations

from clarifai_grpc.grpc.api import resources_pb2
from google.protobuf import duration_pb2, timestamp_pb2, wrappers_pb2

from penstock.calls.clock import Clock
from penstock.runner.clarifai.posting import Posted


class Metrics:
    """Counts, from one report to the next.

    Args:
        task_id: Whose they are.
        clock: Tells the time.
    """

    def __init__(self, task_id: str, clock: Clock) -> None:
        self._task_id = task_id
        self._clock = clock
        self._since = clock.wall()
        self._counts = resources_pb2.RunnerReplicaTaskMetrics()
        self._latencies: list[float] = []
        self.waiting = 0
        """Annotations that are not posted yet."""

    def looked(self, time_ms: int, *, failed: bool) -> None:
        """A frame was looked at, or the model failed on it."""
        counts = self._counts
        if failed:
            counts.frames_skipped += 1
        else:
            counts.frames_processed += 1
        if not counts.HasField("start_frame_time"):
            counts.start_frame_time.CopyFrom(wrappers_pb2.UInt64Value(value=time_ms))
        counts.end_frame_time.CopyFrom(wrappers_pb2.UInt64Value(value=time_ms))

    def posted(self, posted: Posted, took_s: float) -> None:
        """A batch was taken, or part of it."""
        self._counts.annotations_uploaded += posted.taken
        self._counts.annotations_failed += posted.refused
        self._counts.batches_uploaded += 1
        self._latencies.append(took_s)

    def dropped(self, count: int) -> None:
        """So many annotations that belong together are not posted."""
        if count:
            self._counts.annotations_failed += count
            self._counts.batches_dropped += 1

    def report(self) -> resources_pb2.RunnerReplicaTaskMetrics:
        """Return what was counted since the last time; no frame of a file is ever dropped by chance."""
        found, self._counts = self._counts, resources_pb2.RunnerReplicaTaskMetrics()
        now = self._clock.wall()
        found.task_id = self._task_id
        found.start_time.CopyFrom(_moment(self._since))
        found.end_time.CopyFrom(_moment(now))
        found.upload_queue_size = self.waiting
        if self._latencies:
            found.avg_upload_latency.CopyFrom(_span(sum(self._latencies) / len(self._latencies)))
            found.max_upload_latency.CopyFrom(_span(max(self._latencies)))
            found.last_upload_latency.CopyFrom(_span(self._latencies[-1]))
        self._since, self._latencies = now, []
        return found


def _moment(seconds: float) -> timestamp_pb2.Timestamp:
    whole = int(seconds)
    return timestamp_pb2.Timestamp(seconds=whole, nanos=int((seconds - whole) * 1e9))


def _span(seconds: float) -> duration_pb2.Duration:
    whole = int(seconds)
    return duration_pb2.Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))
