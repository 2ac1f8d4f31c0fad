# One image for every process: `orders run command`, `orders run projector`, `orders run query`, `orders migrate`.

FROM python:3.13.14-slim-trixie AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

# The virtual environment has no pip of its own, so none reaches the final image through it.
RUN python -m venv --without-pip /opt/orders

# Dependencies first: this layer is rebuilt only when the lock changes. Wheels only, so no compiler is needed.
COPY requirements/runtime.lock requirements/embedded.lock requirements/
RUN pip --python /opt/orders/bin/python install --require-hashes --only-binary :all: -r requirements/runtime.lock

# setuptools builds our wheel. It too comes by its hash, out of a lock, and stays in this stage.
RUN awk '/^[a-z0-9]/ {wanted = /^setuptools==/} wanted' requirements/embedded.lock > setuptools.lock \
 && pip install --require-hashes --only-binary :all: -r setuptools.lock

COPY pyproject.toml README.md ./
COPY cli/ cli/
COPY command_service/ command_service/
COPY migrations/ migrations/
COPY projector/ projector/
COPY query_service/ query_service/
COPY shared/ shared/
RUN pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
 && pip --python /opt/orders/bin/python install --no-deps --no-index wheels/*.whl


FROM python:3.13.14-slim-trixie
COPY --from=build /opt/orders /opt/orders
ENV PATH=/opt/orders/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
# Each process has its own port and health check: see docker-compose.yml.
ENTRYPOINT ["orders"]
