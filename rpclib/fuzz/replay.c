/*
 * Runs a fuzzer on inputs that are kept: each file, and each file in each folder, that is named.  Fails when there is
 * none, so that a corpus that got lost is seen.
 */
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

#include "fuzz.h"

#define PATH_SIZE      4096
#define INPUT_SIZE_MAX (1024 * 1024) /* nothing that is kept is nearly as large */

static unsigned inputs;

static void stop(const char *what, const char *path)
{
    fprintf(stderr, "replay: %s: %s: %s\n", path, what, strerror(errno));
    exit(1);
}

static void replay_file(const char *path)
{
    static uint8_t data[INPUT_SIZE_MAX];
    FILE *file = fopen(path, "rb");
    uint8_t *exact;
    size_t size;

    if (file == NULL)
        stop("cannot be opened", path);
    size = fread(data, 1, sizeof(data), file);
    if (ferror(file) || size == sizeof(data))
        stop("cannot be read, or is too large", path);
    fclose(file);
    exact = (uint8_t *)fuzz_exact(fuzz_bytes(data, size));
    fprintf(stderr, "%s\n", path); /* the last line before a crash names its input */
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    inputs++;
}

static int is_shown(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void replay_folder(const char *folder)
{
    struct dirent **entries;
    int count = scandir(folder, &entries, is_shown, alphasort);

    if (count < 0)
        stop("cannot be listed", folder);
    for (int i = 0; i < count; i++) {
        char path[PATH_SIZE];

        if (snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name) >= (int)sizeof(path))
            stop("is too long", folder);
        replay_file(path);
        free(entries[i]);
    }
    free(entries);
}

int main(int argc, char *argv[])
{
    LLVMFuzzerTestOneInput(NULL, 0);
    for (int i = 1; i < argc; i++) {
        struct stat status;

        if (stat(argv[i], &status) != 0)
            stop("cannot be found", argv[i]);
        if (S_ISDIR(status.st_mode))
            replay_folder(argv[i]);
        else
            replay_file(argv[i]);
    }
    printf("%u inputs replayed\n", inputs);
    return inputs > 0 ? 0 : 1;
}
