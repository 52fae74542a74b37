/* SPDX-License-Identifier: MIT */
/*
 * The sentence that goes with a negative errno. Functions that can fail for a reason a user should
 * read take a struct err as their last input argument, return a negative errno and fill in the
 * text: "model-00002-of-00003.safetensors: tensor model.norm.weight: ends at byte 900, the file has
 * 800". No trailing newline, no program name: whoever prints adds those.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#define ERR_TEXT_MAX 512

struct err {
    char text[ERR_TEXT_MAX];
};

/*
 * Write the sentence, printf-style, cut at ERR_TEXT_MAX - 1 bytes; return code unchanged, so that a
 * failure is one line: return err_set(err, -EINVAL, "..."). err may be NULL. The text may be an
 * argument of its own replacement (err_set(err, r, "%s: %s", what, err->text)).
 */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Put "what: " in front of the sentence already there; return code unchanged. */
int err_prefix(struct err *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
