/* products: the routes of products. */
#ifndef KORE_GATEWAY_PRODUCTS_H
#define KORE_GATEWAY_PRODUCTS_H

struct flight;

void products_create(struct flight *flight); /* POST /products */
void products_get(struct flight *flight);    /* GET /products/{id} */
void products_delete(struct flight *flight); /* DELETE /products/{id} */

#endif
