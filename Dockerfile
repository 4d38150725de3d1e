# One image for all parts of the suite: its entry point is the `insta` command. docker-compose.yml runs a container for each
# part; this is one for all of them, which its own network keeps private but for the ports:
#
#     docker build --tag insta .
#     docker run --volume insta:/var/lib/insta --publish 127.0.0.1:50051:50051 --publish 127.0.0.1:8080:8080 \
#       --env INSTA_LISTEN=0.0.0.0:50051 --env INSTA_MEDIA_LISTEN=0.0.0.0:8080 \
#       --env INSTA_INSECURE_PLAINTEXT=true insta up
#
# Behind a proxy or a mirror, give what the build needs: --build-arg HTTPS_PROXY=... --build-arg PIP_INDEX_URL=..., or
# --build-arg BASE=... for a base image that trusts the certificates of your network.
ARG BASE=python:3.11-slim-bookworm

# The stubs and the descriptor set, made of the contracts.
FROM ${BASE} AS stubs
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
COPY pyproject.toml constraints.txt ./
RUN python -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir --constraint constraints.txt '.[protos]'
COPY protos protos
RUN PATH="/opt/tools/bin:$PATH" python protos/generate.py /stubs

# The suite with what it runs on, in a virtual environment without pip.
FROM ${BASE} AS installed
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# The dependencies first: this layer stays while only the code changes. What keeping images in S3 takes is among them.
RUN python -m venv --without-pip /opt/insta \
 && pip --python /opt/insta/bin/python install --no-cache-dir --constraint constraints.txt '.[postgresql,s3,tracing]' \
 && pip --python /opt/insta/bin/python uninstall --yes insta
COPY --from=stubs /stubs/insta insta
COPY chassis chassis
COPY services services
COPY gateway gateway
COPY suite suite
RUN pip --python /opt/insta/bin/python install --no-cache-dir --no-deps .

FROM ${BASE}
# The number is fixed, so that it is known to those who mount folders or forbid root by it.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/insta --shell /usr/sbin/nologin insta \
 && install --directory --owner insta --group insta --mode 0700 /var/lib/insta \
    # Where docker-compose.yml and docker-compose.scale.yml mount certificates: a new volume takes over the owner.
    /etc/insta/tls/ca /etc/insta/tls/users /etc/insta/tls/posts /etc/insta/tls/social /etc/insta/tls/gateway \
    /etc/insta/tls/database
COPY --from=installed /opt/insta /opt/insta
ENV PATH=/opt/insta/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    INSTA_DATA=/var/lib/insta
USER 10001:10001
WORKDIR /var/lib/insta
VOLUME /var/lib/insta
ENTRYPOINT ["insta"]
CMD ["--help"]
