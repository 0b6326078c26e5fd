#include "load_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#define NUMBER_SIZE_MAX 24

_Noreturn static void refuse(const char *path, const char *what)
{
    fprintf(stderr, "%s: %s\n", path, what);
    exit(2);
}

/* \r, \n and \\ as in C, in place. */
static void unescape(char *text)
{
    char *out = text;

    for (; *text != '\0'; text++) {
        if (*text == '\\' && text[1] != '\0') {
            text++;
            *out++ = *text == 'r' ? '\r' : *text == 'n' ? '\n' : *text;
        } else {
            *out++ = *text;
        }
    }
    *out = '\0';
}

static void template_add(struct plan_template *out, const char *path, struct plan_part part)
{
    if (part.type == PLAN_TEXT && part.size == 0)
        return;
    if (out->parts_count == PLAN_PARTS_MAX)
        refuse(path, "a line with too many {...}");
    out->parts[out->parts_count++] = part;
    out->size_max += part.type == PLAN_TEXT ? part.size : NUMBER_SIZE_MAX;
}

static void template_read(struct plan_template *out, const char *path, const char *text)
{
    static const struct {
        const char *name;
        enum plan_part_type type;
    } holes[] = {
        {"{product}", PLAN_PRODUCT}, {"{order}", PLAN_ORDER}, {"{integer}", PLAN_INTEGER}, {"{new}", PLAN_NEW}};
    const char *from = text;

    while (*text != '\0') {
        size_t hole = 0;

        while (hole < sizeof(holes) / sizeof(holes[0]) &&
               strncmp(text, holes[hole].name, strlen(holes[hole].name)) != 0)
            hole++;
        if (hole == sizeof(holes) / sizeof(holes[0])) {
            text++;
            continue;
        }
        template_add(out, path, (struct plan_part){PLAN_TEXT, from, (size_t)(text - from)});
        template_add(out, path, (struct plan_part){holes[hole].type, NULL, 0});
        text += strlen(holes[hole].name);
        from = text;
    }
    template_add(out, path, (struct plan_part){PLAN_TEXT, from, (size_t)(text - from)});
}

static void plan_read_line(struct plan *plan, const char *path, const char *word, char *value)
{
    struct plan_kind *kind = plan->kinds_count > 0 ? &plan->kinds[plan->kinds_count - 1] : NULL;

    if (strcmp(word, "products") == 0) {
        plan->products = strtoull(value, NULL, 10);
    } else if (strcmp(word, "orders") == 0) {
        plan->orders = strtoull(value, NULL, 10);
    } else if (strcmp(word, "refused") == 0) {
        plan->refused = (int)strtol(value, NULL, 10);
    } else if (strcmp(word, "kind") == 0) {
        if (plan->kinds_count == PLAN_KINDS_MAX)
            refuse(path, "too many kinds");
        plan->kinds[plan->kinds_count++].name = value;
    } else if (kind == NULL) {
        refuse(path, "a line before the first kind");
    } else if (strcmp(word, "weight") == 0) {
        kind->weight = (unsigned)strtoul(value, NULL, 10);
        plan->weights += kind->weight;
    } else if (strcmp(word, "numbers") == 0) {
        kind->draws_orders = strcmp(value, "orders") == 0;
    } else if (strcmp(word, "status") == 0) {
        kind->status = (int)strtol(value, NULL, 10);
    } else if (strcmp(word, "request") == 0) {
        unescape(value);
        template_read(&kind->request, path, value);
    } else if (strcmp(word, "answer") == 0) {
        unescape(value);
        template_read(&kind->answer, path, value);
    } else {
        refuse(path, "a line that begins with an unknown word");
    }
}

void plan_read(struct plan *plan, const char *path)
{
    FILE *file = fopen(path, "r");
    char *line = NULL; /* each line is kept: the templates point into it */
    size_t capacity = 0;

    *plan = (struct plan){0};
    if (file == NULL)
        refuse(path, "cannot be read");
    while (getline(&line, &capacity, file) > 0) {
        char *value = strchr(line, ' ');

        line[strcspn(line, "\n")] = '\0';
        if (value == NULL)
            refuse(path, "a line without a value");
        *value++ = '\0';
        plan_read_line(plan, path, line, value);
        line = NULL;
        capacity = 0;
    }
    free(line);
    fclose(file);
    if (plan->weights == 0 || plan->products == 0 || plan->orders == 0)
        refuse(path, "it names no kind, no products or no orders");
}

const struct plan_kind *plan_draw(const struct plan *plan, uint64_t random_kind, uint64_t random_number,
                                  uint64_t *number)
{
    unsigned at = (unsigned)(random_kind % plan->weights);
    const struct plan_kind *kind = plan->kinds;

    for (; at >= kind->weight; kind++)
        at -= kind->weight;
    *number = random_number % (kind->draws_orders ? plan->orders : plan->products) + 1;
    return kind;
}

static size_t number_print(const struct plan *plan, enum plan_part_type type, uint64_t number, char *out)
{
    char digits[NUMBER_SIZE_MAX];
    size_t count = 0, size;

    if (type == PLAN_PRODUCT)
        number = (number - 1) % plan->products + 1;
    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (type == PLAN_PRODUCT && count < PLAN_PRODUCT_DIGITS)
        digits[count++] = '0';
    for (size = 0; count > 0; size++)
        out[size] = digits[--count];
    return size;
}

size_t plan_request_print(const struct plan *plan, const struct plan_kind *kind, uint64_t number, char *out)
{
    char *end = out;

    for (size_t i = 0; i < kind->request.parts_count; i++) {
        const struct plan_part *part = &kind->request.parts[i];

        if (part->type == PLAN_TEXT) {
            memcpy(end, part->text, part->size);
            end += part->size;
        } else {
            end += number_print(plan, part->type, number, end);
        }
    }
    return (size_t)(end - out);
}

/* How many bytes at `text` are an integer. */
static size_t integer_size(const char *text, size_t size)
{
    size_t sign = size > 0 && text[0] == '-', digits = 0;

    while (sign + digits < size && text[sign + digits] >= '0' && text[sign + digits] <= '9')
        digits++;
    return digits > 0 ? sign + digits : 0;
}

/* How many bytes at `text` are what `part` stands for; SIZE_MAX: they are something else. */
static size_t part_size(const struct plan *plan, const struct plan_part *part, uint64_t number, const char *text,
                        size_t size)
{
    char digits[NUMBER_SIZE_MAX];
    size_t length;

    switch (part->type) {
    case PLAN_TEXT:
        return size >= part->size && memcmp(text, part->text, part->size) == 0 ? part->size : SIZE_MAX;
    case PLAN_PRODUCT:
    case PLAN_ORDER:
        length = number_print(plan, part->type, number, digits);
        return size >= length && memcmp(text, digits, length) == 0 ? length : SIZE_MAX;
    case PLAN_INTEGER:
    case PLAN_NEW:
        break;
    }
    length = integer_size(text, size);
    return length > 0 ? length : SIZE_MAX;
}

bool plan_answer_matches(const struct plan *plan, const struct plan_kind *kind, uint64_t number, const char *body,
                         size_t size, uint64_t *new_id)
{
    for (size_t i = 0; i < kind->answer.parts_count; i++) {
        size_t used = part_size(plan, &kind->answer.parts[i], number, body, size);

        if (used == SIZE_MAX)
            return false;
        if (kind->answer.parts[i].type == PLAN_NEW)
            *new_id = strtoull(body, NULL, 10); /* the body lies in a buffer that ends with NUL */
        body += used;
        size -= used;
    }
    return size == 0;
}
