// SPDX-License-Identifier: Apache-2.0
/*
 * The fastest reader of a trace.dat there is: a loop over libtracecmd that reads every field and keeps
 * nothing. tests/bench_tracedat.py compiles it (Debian: libtracecmd-dev) and compares.
 *
 * Usage: bench_libtracecmd trace.dat
 * Prints the number of records, of fields, of bytes of text, and the sum of all numbers.
 */
#include <stdio.h>
#include <string.h>
#include <trace-cmd.h>

static unsigned long long records, fields, text_bytes, sum;

static int read_fields(struct tracecmd_input *handle, struct tep_record *record, int cpu, void *data)
{
	struct tep_event *event = tep_find_event_by_record(tracecmd_get_tep(handle), record);
	struct tep_format_field *field;
	unsigned long long value;

	records++;
	sum += record->ts;
	if (!event)
		return 0;
	for (field = event->format.fields; field; field = field->next) {
		const char *start = (const char *)record->data;

		fields++;
		if (field->flags & TEP_FIELD_IS_DYNAMIC) {
			if (!tep_read_number_field(field, record->data, &value))
				text_bytes += strnlen(start + (value & 0xffff), value >> 16);
		} else if (field->flags & (TEP_FIELD_IS_STRING | TEP_FIELD_IS_ARRAY)) {
			text_bytes += strnlen(start + field->offset,
					      field->size ? field->size : record->size - field->offset);
		} else if (!tep_read_number_field(field, record->data, &value)) {
			sum += value;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct tracecmd_input *handle;

	if (argc != 2) {
		fprintf(stderr, "usage: %s trace.dat\n", argv[0]);
		return 2;
	}
	handle = tracecmd_open(argv[1], 0);
	if (!handle) {
		fprintf(stderr, "%s: cannot be opened\n", argv[1]);
		return 1;
	}
	if (tracecmd_iterate_events(handle, NULL, 0, read_fields, NULL) < 0)
		return 1;
	printf("%llu %llu %llu %llu\n", records, fields, text_bytes, sum);
	tracecmd_close(handle);
	return 0;
}
