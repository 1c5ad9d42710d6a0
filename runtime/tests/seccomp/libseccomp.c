/* The filter that libseccomp makes of a list of rules: the reference of seccomp.rs beside this file.
 *
 * Reads from standard input, one item a line, numbers in decimal:
 *   default ACTION | arch TOKEN | optimize | rule NAME ACTION COUNT {INDEX OPERATOR VALUE VALUE}...
 *   done
 * and writes to standard output, for each list:
 *   unknown NAME | refused NAME | newest TOKEN NUMBER | insn CODE JT JF K
 *   done
 * or ends by SIGALRM after two seconds over one list: 2.5.4 has rules that it never finishes.
 * A token is libseccomp's, the native one first; "newest" is what runc bases its ENOSYS answer on.
 */
#define _GNU_SOURCE
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_NAMES 4096

static void list(uint32_t action)
{
	scmp_filter_ctx ctx = seccomp_init(action);
	uint32_t tokens[32];
	char (*names)[64] = calloc(MAX_NAMES, 64);
	int token_count = 0, name_count = 0, refused = 0;
	char word[64];

	alarm(2);
	while (scanf("%63s", word) == 1 && strcmp(word, "done")) {
		if (!strcmp(word, "arch")) {
			scanf("%u", &tokens[token_count++]);
			/* A first token of another byte order must find no native one. */
			if (token_count == 1 && tokens[0] != seccomp_arch_native())
				seccomp_arch_remove(ctx, seccomp_arch_native());
			seccomp_arch_add(ctx, tokens[token_count - 1]);
		} else if (!strcmp(word, "optimize")) {
			seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
		} else if (!strcmp(word, "rule")) {
			struct scmp_arg_cmp args[6];
			unsigned int rule_action, count, op, i;
			int number;

			scanf("%63s %u %u", names[name_count], &rule_action, &count);
			for (i = 0; i < count; i++) {
				scanf("%u %u %lu %lu", &args[i].arg, &op, &args[i].datum_a,
				      &args[i].datum_b);
				args[i].op = (enum scmp_compare)op;
			}
			number = seccomp_syscall_resolve_name(names[name_count]);
			if (number == __NR_SCMP_ERROR) {
				printf("unknown %s\n", names[name_count]);
				continue;
			}
			if (rule_action != action && !refused &&
			    seccomp_rule_add_array(ctx, rule_action, number, count, args)) {
				printf("refused %s\n", names[name_count]);
				refused = 1;
			}
			name_count++;
		}
	}
	for (int t = 0; t < token_count; t++) {
		int newest = 0;
		for (int n = 0; n < name_count; n++) {
			int number = seccomp_syscall_resolve_name_arch(tokens[t], names[n]);
			if (number > newest)
				newest = number;
		}
		printf("newest %u %u\n", tokens[t], newest);
	}
	if (!refused) {
		struct { uint16_t code; uint8_t jt, jf; uint32_t k; } insn;
		int fd = memfd_create("bpf", 0);
		if (seccomp_export_bpf(ctx, fd))
			printf("refused export\n");
		lseek(fd, 0, SEEK_SET);
		while (read(fd, &insn, sizeof insn) == sizeof insn)
			printf("insn %u %u %u %u\n", insn.code, insn.jt, insn.jf, insn.k);
		close(fd);
	}
	alarm(0);
	printf("done\n");
	fflush(stdout);
	free(names);
	seccomp_release(ctx);
}

int main(void)
{
	char word[64];
	uint32_t action;

	while (scanf("%63s %u", word, &action) == 2)
		list(action);
	return 0;
}
