#!/bin/sh
# Writes syscalls.rs, the table of system call numbers, to standard output.
#
#   regenerate.sh HEADERS > syscalls.rs && rustfmt --check --edition 2024 syscalls.rs
#
# HEADERS is a directory into which Debian's kernel headers were unpacked:
#
#   for a in i386 x32 armhf arm64 mips mips64 mipsn32 powerpc ppc64 riscv64 s390x hppa m68k sh4
#   do apt-get download linux-libc-dev-$a-cross; done; apt-get download linux-libc-dev:amd64
#   for d in *.deb; do dpkg-deb -x "$d" HEADERS; done
#
# Needs gcc (its preprocessor only). LoongArch has no Debian package: its table is the generic one
# with the switches that the kernel's arch/loongarch/include/uapi/asm/unistd.h sets. Calls that are
# newer than the headers are listed in `newer`, below; since number 403 all architectures share one
# numbering, so one line serves them all.
set -eu
headers=$1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# numbers COLUMN BASE INCLUDE-DIRECTORY HEADER [gcc options]: writes "name column number" lines
numbers() {
    column=$1 base=$2 dir=$3 header=$4
    shift 4
    printf '#include <%s>\n' "$header" > "$tmp/in.c"
    gcc -E -dM -nostdinc -undef "-I$headers/usr/$dir" "$@" "$tmp/in.c" |
        sed -n 's/^#define __\(ARM_\)\{0,1\}NR_\([a-z_][a-z0-9_]*\) .*/\1 \2/p' |
        while read -r prefix name; do
            [ "$name" ] || { name=$prefix prefix=; }
            printf '@ %s __%sNR_%s\n' "$name" "$prefix" "$name"
        done >> "$tmp/in.c"
    gcc -E -P -nostdinc -undef "-I$headers/usr/$dir" "$@" "$tmp/in.c" | sed -n 's/^@ //p' |
        while read -r name expression; do
            case $expression in *__NR* | *[g-wyz]*) continue ;; esac
            echo "$name $column $(($expression - base))"
        done
}

# Calls that the headers of Linux 6.1 lack: "NUMBER NAME", the same on every architecture ...
newer='451 cachestat
452 fchmodat2
453 map_shadow_stack
454 futex_wake
455 futex_wait
456 futex_requeue
457 statmount
458 listmount
459 lsm_get_self_attr
460 lsm_set_self_attr
461 lsm_list_modules
462 mseal
463 setxattrat
464 getxattrat
465 listxattrat
466 removexattrat
467 open_tree_attr
468 file_getattr
469 file_setattr
470 listns
471 rseq_slice_yield'

{
    numbers x86 0 i686-linux-gnu/include asm/unistd_32.h
    numbers x86_64 0 include/x86_64-linux-gnu asm/unistd_64.h
    numbers x32 0x40000000 x86_64-linux-gnux32/include asm/unistd_x32.h -D__X32_SYSCALL_BIT=0x40000000
    numbers arm 0 arm-linux-gnueabihf/include asm/unistd.h -D__ARM_EABI__
    numbers aarch64 0 aarch64-linux-gnu/include asm/unistd.h -D__LP64__ -D__aarch64__
    numbers loongarch64 0 aarch64-linux-gnu/include asm-generic/unistd.h \
        -D__ARCH_WANT_SYS_CLONE -D__ARCH_WANT_SYS_CLONE3 -D__ARCH_WANT_NEW_STAT
    numbers m68k 0 m68k-linux-gnu/include asm/unistd_32.h
    numbers mips 4000 mips-linux-gnu/include asm/unistd_o32.h -D__NR_Linux=4000
    numbers mips64 5000 mips-linux-gnu/include asm/unistd_n64.h -D__NR_Linux=5000
    numbers mips64n32 6000 mips-linux-gnu/include asm/unistd_n32.h -D__NR_Linux=6000
    numbers parisc 0 hppa-linux-gnu/include asm/unistd_32.h -D__NR_Linux=0
    numbers parisc64 0 hppa-linux-gnu/include asm/unistd_64.h -D__NR_Linux=0
    numbers ppc 0 powerpc-linux-gnu/include asm/unistd_32.h
    numbers ppc64 0 powerpc-linux-gnu/include asm/unistd_64.h
    numbers riscv64 0 riscv64-linux-gnu/include asm/unistd.h \
        -D__LP64__ -D__riscv -D__SIZEOF_POINTER__=8
    numbers s390 0 s390x-linux-gnu/include asm/unistd_32.h
    numbers s390x 0 s390x-linux-gnu/include asm/unistd_64.h
    numbers sh 0 sh4-linux-gnu/include asm/unistd_32.h
    # ... and on one architecture alone.
    echo 'riscv_hwprobe riscv64 258
uretprobe x86_64 335
uretprobe x32 335
uprobe x86_64 336
uprobe x32 336
cacheflush parisc 356
cacheflush parisc64 356
memfd_secret s390 447
memfd_secret s390x 447
sync_file_range2 sh 388'
    echo "$newer" | while read -r number name; do
        for column in x86 x86_64 x32 arm aarch64 loongarch64 m68k mips mips64 mips64n32 \
            parisc parisc64 ppc ppc64 riscv64 s390 s390x sh; do
            echo "$name $column $number"
        done
    done
} > "$tmp/numbers"

LC_ALL=C sort -u "$tmp/numbers" | awk '
BEGIN {
    columns = split("x86 x86_64 x32 arm aarch64 loongarch64 m68k mips mips64 mips64n32 " \
        "parisc parisc64 ppc ppc64 riscv64 s390 s390x sh", order, " ")
    for (i = 1; i <= columns; i++) at[order[i]] = i
}
# No call but a name for one that has another, the end of a range, or never implemented anywhere.
$1 ~ /^(syscalls|arch_specific_syscall|syscall_max|Linux|SYSCALL_BASE)$/ { next }
$1 ~ /^(ni_syscall|syscall_mask|(reserved|unused)[0-9]+)$/ { next }
{
    # ARM keeps five private calls at 0xf0001 and up.
    n = $3 >= 983040 ? 61440 + $3 - 983040 : $3
    if (!($1 in seen)) { seen[$1] = 1; names[++count] = $1 }
    number[$1, at[$2]] = n
}
END {
    print "//! System call names and numbers, written by `regenerate.sh` from kernel headers: see there."
    print "//! Sorted by name; one column per ABI, in the order of [`super::table::Column`]."
    print ""
    print "/// No such call in this ABI."
    print "pub(super) const NONE: u16 = u16::MAX;"
    print "const N: u16 = NONE;"
    print ""
    printf "/// Each call with its numbers, before the ABI adds its base.\n"
    print "#[rustfmt::skip]"
    printf "pub(super) static ROWS: [(&str, [u16; %d]); %d] = [\n", columns, count
    for (i = 1; i <= count; i++) {
        printf "    (\"%s\", [", names[i]
        for (c = 1; c <= columns; c++)
            printf "%s%s", (names[i], c) in number ? number[names[i], c] : "N", c < columns ? "," : "]),\n"
    }
    print "];"
}'
