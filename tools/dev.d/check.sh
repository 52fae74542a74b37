# SPDX-License-Identifier: MIT
# Checks of the sources that need no build, and clang's tools over them.
# shellcheck shell=bash

PUBLIC_HEADERS=(runtime/include/gtt.h runtime/include/llm.h)
INCLUDES=(-Iruntime/include -Iruntime/base -Iruntime/text -Igttd/proto)

# Tracked and new files, but not what the tree ignores. Optional patterns as for git ls-files.
our_files() {
    git ls-files --cached --others --exclude-standard -- "$@" | while IFS= read -r file; do
        [ ! -f "$file" ] || echo "$file"
    done
}

c_files() {
    our_files '*.c' '*.h'
}

# The tree is formatted by clang-format 14; other versions differ in details.
clang_format() {
    if command -v clang-format-14 >/dev/null; then
        echo clang-format-14
    elif clang-format --version 2>/dev/null | grep -q 'version 14\.'; then
        echo clang-format
    fi
}

format_all() {
    local tool
    tool=$(clang_format)
    [ -n "$tool" ] || die "clang-format 14 is needed (apt install clang-format-14)"
    c_files | xargs "$tool" -i
}

# 77: no tool
check_format() {
    local tool
    tool=$(clang_format)
    if [ -z "$tool" ]; then
        echo "clang-format 14 is not installed"
        return 77
    fi
    c_files | xargs "$tool" --dry-run --Werror
}

# 77: no tool
tidy() {
    if ! command -v clang-tidy >/dev/null; then
        echo "clang-tidy is not installed"
        return 77
    fi
    build clang >/dev/null
    if [ $# -eq 0 ]; then
        # shellcheck disable=SC2046 # no spaces in our names
        set -- $(our_files 'gttd/*.c' 'runtime/*.c')
    fi
    printf '%s\n' "$@" | xargs -P "$(nproc)" -n 4 clang-tidy -p build/clang --quiet
}

# Every public header compiles alone, as C and as C++, without a warning.
check_headers() {
    local header failed=0
    for header in "${PUBLIC_HEADERS[@]}"; do
        [ -e "$header" ] || continue
        cc -std=c17 -Wall -Wextra -Wpedantic -Werror "${INCLUDES[@]}" -fsyntax-only -x c "$header" ||
            failed=1
        c++ -std=c++17 -Wall -Wextra -Wpedantic -Werror "${INCLUDES[@]}" -fsyntax-only -x c++ "$header" ||
            failed=1
    done
    return $failed
}

# White space errors, licences, paths of one machine, large files.
check_hygiene() {
    local failed=0 file size
    if ! git grep -nI --untracked -E '[[:space:]]+$' -- '*.c' '*.h' '*.comp' '*.glsl' '*.cmake' \
        '*CMakeLists.txt' '*.sh' '*.py' '*.md' tools .ci ':!tests/fuzz/corpus' ':!tests/vectors' >"$1" &&
        [ ! -s "$1" ]; then
        :
    else
        echo "white space at the end of a line:"
        cat "$1"
        failed=1
    fi
    while IFS= read -r file; do
        if ! head -n 5 "$file" | grep -q 'SPDX-License-Identifier:'; then
            echo "$file: no SPDX-License-Identifier in its first lines"
            failed=1
        fi
    done < <(our_files '*.c' '*.h' '*.comp' '*.glsl' '*.py' '*.sh' tools/dev .ci/run)
    if git grep -nI --untracked -E '(^|[^[:alnum:]_.])/(work|home|root|Users)/[[:alnum:]]' \
        -- ':!models' ':!tests/fuzz/corpus' ':!tests/vectors' ':!tools/dev.d/check.sh'; then
        echo "a path of somebody's machine"
        failed=1
    fi
    while IFS= read -r file; do
        size=$(stat -c %s "$file")
        if [ "$size" -gt 16777216 ]; then
            echo "$file: $size bytes: too large for git"
            failed=1
        fi
    done < <(our_files)
    return $failed
}
