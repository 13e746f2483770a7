"""A host that dials out to a server of Clarifai's runners: `V2/ProcessRunnerItems`, as the protos have it.

Needs the extra ``clarifai``.
"""
