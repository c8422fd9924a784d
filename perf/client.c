/* The measured client: does one kind of work on a mount and prints what it took as JSON.
 *
 *   client walk DIR           lstat of every entry below DIR, as `find -printf` does it
 *   client read LIST PROCS    open, read whole, close every file named in LIST, split over PROCS
 *   client open LIST PROCS    open and close only
 *
 * LIST holds one path a line. The time is taken around the work alone, without reading LIST.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { READ_BYTES = 128 * 1024, OPEN_DIRS = 32 };

static long entries;
static long long bytes;

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static int count_entry(const char *path, const struct stat *info, int kind, struct FTW *place)
{
	(void)path;
	(void)place;
	if (kind == FTW_NS || kind == FTW_DNR)
		return 1;
	entries++;
	bytes += info->st_size;
	return 0;
}

static int walk(const char *root)
{
	double start = now();

	if (nftw(root, count_entry, OPEN_DIRS, FTW_PHYS) != 0) {
		perror(root);
		return 1;
	}
	printf("{\"items\": %ld, \"bytes\": %lld, \"seconds\": %.6f}\n", entries, bytes,
	       now() - start);
	return 0;
}

/* Every file of NAMES from FIRST on, STEP apart; -1 at the first error. */
static long long visit(char **names, long count, long first, long step, int with_data)
{
	static char buffer[READ_BYTES];
	long long total = 0;

	for (long i = first; i < count; i += step) {
		int file = open(names[i], O_RDONLY | O_CLOEXEC);
		ssize_t got = 0;

		if (file < 0) {
			perror(names[i]);
			return -1;
		}
		while (with_data && (got = read(file, buffer, sizeof buffer)) > 0)
			total += got;
		if (got < 0) {
			perror(names[i]);
			return -1;
		}
		close(file);
	}
	return total;
}

static char **load_list(const char *path, long *count)
{
	FILE *list = fopen(path, "r");
	char **names = NULL, *line = NULL;
	size_t room = 0;
	long space = 0;

	*count = 0;
	if (list == NULL)
		return NULL;
	for (ssize_t length; (length = getline(&line, &room, list)) > 0;) {
		line[strcspn(line, "\n")] = 0;
		if (*count == space) {
			space = space ? 2 * space : 1024;
			names = realloc(names, (size_t)space * sizeof *names);
			if (names == NULL)
				return NULL;
		}
		names[(*count)++] = strdup(line);
	}
	fclose(list);
	return names;
}

static int spread(const char *path, long procs, int with_data)
{
	long count, failed = 0;
	char **names = load_list(path, &count);
	int totals[2];
	double start;

	if (names == NULL || procs < 1 || pipe(totals) != 0) {
		perror(path);
		return 1;
	}
	start = now();
	for (long p = 0; p < procs; p++)
		if (fork() == 0) {
			long long total = visit(names, count, p, procs, with_data);

			if (write(totals[1], &total, sizeof total) != sizeof total)
				_exit(1);
			_exit(total < 0);
		}
	for (long p = 0; p < procs; p++) {
		int status;

		wait(&status);
		failed += status != 0;
	}
	double seconds = now() - start;

	for (long p = 0; p < procs && !failed; p++) {
		long long total;

		if (read(totals[0], &total, sizeof total) == sizeof total)
			bytes += total;
	}
	printf("{\"items\": %ld, \"bytes\": %lld, \"seconds\": %.6f}\n", count, bytes, seconds);
	return failed != 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "walk") == 0)
		return walk(argv[2]);
	if (argc == 4 && (strcmp(argv[1], "read") == 0 || strcmp(argv[1], "open") == 0))
		return spread(argv[2], atol(argv[3]), argv[1][0] == 'r');
	fprintf(stderr, "usage: client walk DIR | read LIST PROCS | open LIST PROCS\n");
	return 2;
}
