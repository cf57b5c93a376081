# docker build -t ctd . ; docker run --user "$(id -u):$(id -g)" -v "$PWD:/work" ctd run job.yaml
# For GPUs, add `RUN pip install "jax[cuda13]"` and start with --gpus all.
FROM python:3.13-slim AS build
RUN pip install --no-cache-dir uv
COPY pyproject.toml uv.lock README.md LICENSE /source/
COPY ctd /source/ctd
COPY jobs /source/jobs
COPY cluster /source/cluster
WORKDIR /source
RUN uv build --wheel --out-dir /dist \
    && uv export --locked --no-dev --no-emit-project --quiet --output-file /dist/requirements.txt

FROM python:3.13-slim
COPY --from=build /dist /dist
RUN pip install --no-cache-dir --requirement /dist/requirements.txt \
    && pip install --no-cache-dir --no-deps /dist/*.whl
# Any user may run it, so that the files in /work are theirs: Ray and Matplotlib need a home that they can write to.
ENV HOME=/tmp
USER 1000
WORKDIR /work
ENTRYPOINT ["ctd"]
CMD ["--help"]
