"""The channelz service: what gRPC knows of the connections of this process. For staff."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc_channelz.v1 import _async as stock

from chassis import errors
from chassis.errors import Reason

NAME = "grpc.channelz.v1.Channelz"


class _StockContext:
    """What the stock servicer needs of a context: it says with it that there is nothing of the given id."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        """It is the text of an exception, and not passed on."""


class ChannelzServicer:
    """The stock servicer, with the errors of the suite."""

    def __getattr__(self, method: str) -> Callable[[Any, object], Awaitable[Any]]:
        handler = getattr(stock.ChannelzServicer, method)

        async def answer(request: Any, context: object) -> Any:
            stock_context = _StockContext()
            response = await handler(request, stock_context)
            if stock_context.code is not None:
                text = "there is no server, channel or socket with this id here"
                raise errors.NotFound(Reason.REASON_CHANNEL_NOT_FOUND, text)
            return response

        return answer
