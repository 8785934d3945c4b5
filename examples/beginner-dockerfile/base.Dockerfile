# Stands in for tensorflow/tensorflow:latest on a machine that reaches PyPI but no image registry.
ARG BASE=slipway/python:bookworm
FROM ${BASE}

# Debian's pip refuses to install beside Debian's own packages unless told; in an image that is what we want.
ENV PIP_BREAK_SYSTEM_PACKAGES=1
RUN pip install --no-cache-dir tensorflow-cpu==2.21.0
