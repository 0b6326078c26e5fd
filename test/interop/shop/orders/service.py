from nameko.events import EventDispatcher
from nameko.rpc import rpc

from orders.database import OrdersProvider


class OrdersService:
    name = "orders"
    orders = OrdersProvider()
    dispatch = EventDispatcher()

    @rpc
    def get_order(self, order_id):
        return self.orders.get(order_id)

    @rpc
    def create_order(self, order_details):
        order = self.orders.create(order_details)
        self.dispatch("order_created", {"order": order})
        return order

    @rpc
    def update_order(self, order):
        return self.orders.update(order)

    @rpc
    def delete_order(self, order_id):
        self.orders.delete(order_id)

    @rpc
    def list_orders(self):
        return self.orders.list()
