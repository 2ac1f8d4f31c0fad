"""What a service refuses to start with, and the table of routes and roles."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi import APIRouter, FastAPI

from command_service.app import create_app as create_command_app
from projector.__main__ import create_app as create_projector_app
from query_service.app import create_app as create_query_app
from shared.identity.access import InsecureSettings, UndeclaredAccess, access_of, check_settings, secure
from shared.settings import Settings
from tests.access_table import PAGE, all_access, page
from tests.identity.issuer import AUDIENCE, ISSUER
from tests.openapi import NOWHERE

IDENTIFYING = {"auth": "jwt", "auth_issuer": ISSUER, "auth_audience": AUDIENCE, "auth_jwks": "keys.json"}


def settings(**changes: object) -> Settings:
    return Settings.model_validate({**NOWHERE.model_dump(), **changes})


def test_the_page_has_the_table_of_the_code() -> None:
    assert PAGE.read_text() == page(), "run `make access`"


def test_the_table_has_every_route_once() -> None:
    routes = [(access.method, access.path) for access in all_access()]
    assert len(routes) == len(set(routes)) > 15


def test_a_route_that_does_not_say_who_may_use_it_keeps_the_service_from_starting() -> None:
    app = FastAPI(docs_url=None, redoc_url=None)

    @app.get("/forgotten")
    async def forgotten() -> None: ...

    with pytest.raises(UndeclaredAccess, match="/forgotten"):
        secure(app, settings())
    with pytest.raises(UndeclaredAccess, match="/forgotten"):
        [*access_of(app.router.routes)]


@pytest.mark.parametrize("create_app", [create_command_app, create_query_app, create_projector_app])
def test_no_route_is_added_past_the_check_of_callers(create_app: Callable[[Settings], FastAPI]) -> None:
    app = create_app(NOWHERE)
    with pytest.raises(TypeError, match="add_routes"):
        app.get("/forgotten")(lambda: None)
    with pytest.raises(TypeError, match="add_routes"):
        app.include_router(APIRouter())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_without_authentication_a_service_listens_on_loopback_addresses(host: str) -> None:
    check_settings(settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "orders.example"])
def test_without_authentication_a_service_listens_elsewhere_only_where_that_is_asked_for(host: str) -> None:
    with pytest.raises(InsecureSettings, match="AUTH_OFF_ANYWHERE"):
        check_settings(settings(host=host))
    check_settings(settings(host=host, auth_off_anywhere="yes"))
    check_settings(settings(host=host, **IDENTIFYING))


@pytest.mark.parametrize("missing", ["auth_issuer", "auth_audience", "auth_jwks"])
def test_authentication_needs_its_settings(missing: str) -> None:
    with pytest.raises(InsecureSettings, match=missing.upper()):
        check_settings(settings(**{**IDENTIFYING, missing: ""}))
