"""What Clarifai's gRPC messages mean: names of commands, forms of values, signatures of methods, statuses.

Needs the extra ``clarifai``.  Pure: messages in, messages and JSON out; no channel, clock or event loop.
Sources: the protos of the package clarifai-grpc, and what its SDK writes and reads.
"""
