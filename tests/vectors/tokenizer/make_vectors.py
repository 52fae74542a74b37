#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write the tokenizer's test vectors with Hugging Face's `tokenizers`, an independent implementation.

    python3 tests/vectors/tokenizer/make_vectors.py tests/vectors/tokenizer

Run from the root of the tree on a machine with `pip install tokenizers`. Writes small synthetic
tokenizer files (strip.json, split.json, partial.json, bare.json: flags that the bundled model's file
does not use) and vectors.json: for each file, texts with their ids and what those decode to. Without
`tokenizers` only the synthetic files are written, and it says so.

A case is {"text"} or, for long texts, {"pieces", "seed", "count"}: count pieces drawn by a linear
congruential generator (see draw()). "special": false means that special tokens in the text are text
(encode_special_tokens). "ids" are the ids, or "n" and "fnv" their number and hash. "decode" and
"decode_skip" are left out where ids are hashed.
"""
import json
import os
import sys

MASK = (1 << 64) - 1
SPACE = "\u2581"


def draw(pieces, seed, count):
    out, x = [], seed
    for _ in range(count):
        x = (x * 6364136223846793005 + 1442695040888963407) & MASK
        out.append(pieces[(x >> 33) % len(pieces)])
    return "".join(out)


def fnv(ids):
    h = 0xCBF29CE484222325
    for i in ids:
        for byte in int(i).to_bytes(4, "little"):
            h = ((h ^ byte) * 0x100000001B3) & MASK
    return "%016x" % h


# ---- synthetic tokenizer files ------------------------------------------------------------------


def added(i, content, special=False, normalized=False, single_word=False, lstrip=False, rstrip=False):
    return {"id": i, "content": content, "single_word": single_word, "lstrip": lstrip,
            "rstrip": rstrip, "normalized": normalized, "special": special}


def tokenizer_file(first, alphabet, merges, extra, normalizer, pre_tokenizer, decoder, strings=False,
                   **model):
    """first: tokens in front of the vocabulary; extra: added tokens behind it (id filled in)."""
    vocab = {}
    for token in list(first) + list(alphabet) + [a + b for a, b in merges]:
        vocab.setdefault(token, len(vocab))
    tokens, n = [], len(vocab)
    for token in extra:
        if token["content"] in vocab:
            token["id"] = vocab[token["content"]]
        else:
            token["id"] = n
            n += 1
        tokens.append(token)
    tokens.sort(key=lambda t: t["id"])
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens,
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": None,
        "decoder": decoder,
        "model": {"type": "BPE", "dropout": None, "unk_token": model.get("unk_token"),
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": model.get("fuse_unk", False),
                  "byte_fallback": model.get("byte_fallback", False),
                  "ignore_merges": model.get("ignore_merges", False), "vocab": vocab,
                  "merges": ["%s %s" % m for m in merges] if strings else [list(m) for m in merges]},
    }


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
UNREPLACE = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
FALLBACK, FUSE = {"type": "ByteFallback"}, {"type": "Fuse"}
BYTES = ["<0x%02X>" % b for b in range(256)]
WORDS = [("a", "a"), ("aa", "aa"), ("a", "b"), ("b", "a"), ("ab", "a"), ("h", "e"), ("l", "l"),
         ("he", "ll"), ("hell", "o"), ("w", "o"), ("r", "l"), ("wo", "rl"), ("worl", "d"), ("b", "c"),
         ("a", "bc"), ("ab", "c"), ("o", "o"), ("e", "l"), ("el", "l")]


def synthetic():
    """Name -> tokenizer.json, each with flags that Gemma's own file does not use."""
    letters = list("abcdehlorw.,é世")
    spaced = [(SPACE, w) for w in ("a", "aa", "hello", "world", "b")] + [(SPACE, SPACE)]
    files = {}
    # Llama-like: a space in front of each piece of text, added tokens with every flag, no fusing.
    files["strip.json"] = tokenizer_file(
        ["<unk>", "<s>", "</s>"] + BYTES, letters + [SPACE], WORDS + spaced,
        [added(0, "<unk>", special=True), added(0, "<s>", special=True),
         added(0, "</s>", special=True), added(0, "<l>", special=True, lstrip=True),
         added(0, "<r>", special=True, rstrip=True), added(0, "<lr>", lstrip=True, rstrip=True),
         added(0, "<w>", special=True, single_word=True), added(0, "hello", single_word=True),
         added(0, "<n>", normalized=True), added(0, "a b", normalized=True),
         added(0, "<ns>", special=True, normalized=True, single_word=True),
         added(0, "\n"), added(0, "\n\n"), added(0, "<s><s>"), added(0, "<s", special=False)],
        {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, REPLACE]}, None,
        {"type": "Sequence", "decoders": [UNREPLACE, FALLBACK, FUSE,
                                          {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        unk_token="<unk>", byte_fallback=True)
    # No normalizer: the split on spaces really splits. Words found whole, merges as strings.
    files["split.json"] = tokenizer_file(
        ["<unk>", "<s>", "hello "], letters + [" "], WORDS + [("c", "d"), ("e", "cd")],
        [added(0, "<unk>", special=True), added(0, "<s>", special=True), added(0, "le", normalized=True)],
        None,
        {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        {"type": "Sequence", "decoders": [UNREPLACE, FALLBACK, FUSE]},
        strings=True, unk_token="<unk>", fuse_unk=True, ignore_merges=True)
    # Only some byte tokens: an unknown character next to a fallen-back one. Unknowns not fused.
    files["partial.json"] = tokenizer_file(
        ["<unk>", "<0xC3>", "<0xA4>", "<0xBC>", "<0x0A>", "<0x58>"], letters + [SPACE],
        WORDS + spaced + [("<0xC3>", "<0xA4>"), ("<unk>", "a")],
        [added(0, "<unk>", special=True), added(0, "<x>")], REPLACE, None,
        {"type": "Sequence", "decoders": [UNREPLACE, FALLBACK, FUSE]},
        unk_token="<unk>", byte_fallback=True)
    # Neither unknown token nor byte fallback: what is not in the vocabulary disappears.
    files["bare.json"] = tokenizer_file([], letters + [SPACE], WORDS + spaced, [added(0, "<x>", special=True)],
                                        REPLACE, None,
                                        {"type": "Sequence", "decoders": [UNREPLACE, FUSE]}, fuse_unk=True)
    return files


# ---- texts --------------------------------------------------------------------------------------

ODD = [
    "", " ", "  ", "a", "hello", "Hello, world!", "What does the word candle mean?",
    " leading", "trailing ", "  two  spaces  ", "tab\there", "\t", "\t\t\t", "a\tb\t\tc",
    "line\nline", "line\r\nline", "\r", "\n", "\n \n", " \n\n ", "a\n\n\nb", "\u00a0nbsp\u00a0", "\u3000wide\u3000",
    "\u2003em\u2003", "zero\u200bwidth", "bom\ufeff", "\ufeffbom", "soft\u00adhyphen",
    "caf\u00e9", "cafe\u0301", "\u0301", "e\u0301\u0302\u0303\u0304", "Z\u0351\u036b\u0343\u036a\u0302a\u0342lgo",
    "na\u00efve r\u00e9sum\u00e9", "\u00c5ngstr\u00f6m \u212b", "\ufb01ligature", "\u1e9e stra\u00dfe",
    "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f1e9\U0001f1ea\U0001f1eb",
    "\U0001f44d\U0001f3fd", "\u2764\ufe0f", "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u202eright to left\u202c", "a\u05d0b\u05d1c", "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0",
    "\ud55c\uad6d\uc5b4 \ubb38\uc7a5", "\u1112\u1161\u11ab", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\u1019\u103c\u1014\u103a\u1019\u102c", "\U00020000\U0002a6df", "\U0010ffff", "\uffff", "\ufffd", "\ue000private",
    "\x00", "a\x00b", "\x00\x00", "\x01\x02\x1f\x7f", "\x80\x9f", "\u2028\u2029\u0085", "\x0b\x0c",
    SPACE, SPACE + SPACE, " " + SPACE + " ", "a" + SPACE + "b", SPACE * 40, "a " + SPACE * 3 + " b",
    "<0x41>", "<0x0A>", "<0xFF>", "<0xC3><0xA4>", "<0x4", "<0xzz>", "a<0x41>b",
    "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "[multimodal]", "<unused0>", "<unused98>", "<unused99>",
    "<bos><bos>", "<bos> <eos>", " <bos> ", "x<bos>y", "<bos", "bos>", "<<bos>>", "<b<bos>os>",
    "<start_of_turn>", "<end_of_turn>", "<start_of_tur", "<start_of_turn", "start_of_turn>", "< start_of_turn>",
    "<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n", "<start_of_turn><start_of_turn>",
    "<start_of_<start_of_turn>turn>", "<START_OF_TURN>", "<end_of_turn>\n\n<end_of_turn>", "<mask><mask>",
    "<start_of_turn>\n", "a<end_of_turn>b", "\n<bos>\n", SPACE + "<bos>" + SPACE, "<bos>" + SPACE + SPACE,
    "don't can't won't I'll", "3.14159 1,000,000 0x1F", "http://example.org/a?b=c&d=e#f", "C:\\path\\file",
    "if (x != y) { return *p++; }", "a_b__c___d", "----====****", "\"quoted\" 'single' `tick`", "@#$%^&*()[]{}|~",
    "CamelCaseWordsAreLong", "UPPER lower MiXeD", "antidisestablishmentarianism" * 20, "a" * 300, "ab" * 150,
    "\u00e4" * 100, "\u4e16" * 100, "\U0001f600" * 50, "hello " * 60, "hello" * 60, "aaaaaaa", "abcabcabc",
    "hellohello", "helloworld", "hello world", "worlda", "aab", "abab", "abaaba", "aaabbb", "bcabc", "abc",
    "The quick brown fox jumps over the lazy dog.", "the the the the", "1234567890" * 10,
    "hello.", ".hello", "(hello)", "xhello", "hello_", "_hello", "hello\u0301", "\u0301hello", "hello\u00b2", "9hello", "hello hello",
    "a b", "a  b", "xa b", "a bc", "a b a b", SPACE + "a" + SPACE + "b", "a" + SPACE + "b",
    "<l>", " <l>", "  <l> x", "x  <l>", "\n<l>", "\u2003<l>", "\u00a0\u3000<l>", "\u200b<l>", "<r>  x", "<r>\n\nx", "<r>\n \nx", "<r> <l>",
    "<r>  <l>", "x <lr> y", "<lr>  <lr>", "<lr>\n<lr>", "<lr>\u0085\u2028x", "<l><r>", "<w>", "a<w>", "<w>a", "a <w> b", ".<w>.", "\u0301<w>",
    "<w>\u4e16", "<w>\u00b2", "<w>_", "<w><w>", "<w> <w>", "\u24b6<w>", "\u200d<w>", "<w>\u0660", "<w>\u2163", "\u203f<w>", "<w>\u00aa", "<w>\u093f", "<w>\u20ac",
    "<n>", "a<n>b", "<n> <n>", "<ns>", "a<ns>", "a <ns> b", "<s>", "<s><s>", "<s><s><s>", "<s", "<s <s>", "<s>hello</s>",
    "<s> hello </s>", " hello <s>  hello", "</s>\n\n<s>", "\n\n\n", "\n\n\n\n\n", "hello\nhello", "<unk>a", "a<unk>", "<x>", "a<x>a",
    "x", "xx", "axa", "axxa", "a x x a", "\u00e4", "\u00e4\u00e4", "\u00fc", "\u00f6", "x\u00e4x", "\u00f6\u00e4\u00f6", "x\u00e4", "\u00e4x", "zX", "Xz", "zXz", "zzXXzz", "z\nz",
    "le", "hele", "le le", "ecd", "ecd ecd", "hello  hello   hello", "   hello", "hello   ",
]
for n in list(range(1, 41)) + [63, 64, 65, 100]:
    ODD += [" " * n, "a" + " " * n + "b", "\n" * n]
    if n < 12 or n > 28:
        ODD += ["\t" * n, "a" + "\n" * n + "b", " \n" * n, SPACE * n]

PIECES = ["a", "b", "c", "ab", "he", "llo", "hello", "world", " ", " ", " ", "  ", "\n", "\n\n", "\t", ".", ",", "é", "e\u0301", "世",
          "\U0001f600", "\u200d", SPACE, "<bos>", "<start_of_turn>", "<end_of_turn>", "<mask>", "<", ">", "<s>", "</s>", "<s", "<l>", "<r>",
          "<lr>", "<w>", "<n>", "<ns>", "<x>", "<unk>", "a b", "le", "x", "X", "z", "ä", "ü", "The", "the", " the", "candle", "ing", "ed", "1", "23",
          "_", "\u00a0", "\x00", "<0x41>"]
PROSE = ["The ", "a ", "word ", "candle", " means", ": ", "river", "stream ", "of ", "water", ". ", "\n\n", "Once upon a time ", "there ", "was ",
         "dictionary", "For example", "\"", "'s ", "un", "believ", "able", ", ", "and ", "hello ", "world", " ab", "aa", "é", "世"]


def cases(own):
    """The same texts for every file; own is true for the model's own tokenizer."""
    for text in ODD:
        yield {"text": text}
    for i in range(120):
        yield {"text": draw(PIECES, 1000 + i, 3 + i % 23)}
    for i, count in enumerate([200, 2000, 30000]):
        yield {"pieces": PIECES, "seed": 7 + i, "count": count}
    for i, count in enumerate([1000, 20000] if own else [1000]):
        yield {"pieces": PROSE, "seed": 77 + i, "count": count}
    # one word of 100 kB
    yield {"pieces": ["hello", "world", "aa", "ab", "c", "le", "the"], "seed": 5, "count": 30000}


def encode_all(tok, own):
    out = []
    for case in cases(own):
        long = "pieces" in case
        text = draw(case["pieces"], case["seed"], case["count"]) if long else case["text"]
        seen = None
        for special in (True, False):
            tok.encode_special_tokens = not special
            ids = tok.encode(text, add_special_tokens=False).ids
            if ids == seen:
                out[-1].pop("special")  # both ways alike: one case stands for two
                continue
            seen = ids
            c = dict(case, special=special)
            if long:
                c.update(n=len(ids), fnv=fnv(ids))
            else:
                c.update(ids=ids, decode=tok.decode(ids, skip_special_tokens=False),
                         decode_skip=tok.decode(ids, skip_special_tokens=True))
            out.append(c)
    return out


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: make_vectors.py OUTDIR   (from the root of the tree)")
    outdir = sys.argv[1]
    model = "models/wordbook-22m/tokenizer.json"
    if not os.path.exists(model):
        sys.exit("make_vectors.py: %s: not found; run from the root of the tree" % model)
    os.makedirs(outdir, exist_ok=True)
    files = [model]
    for name, content in synthetic().items():
        path = os.path.join(outdir, name)
        with open(path, "w", encoding="utf-8") as f:
            json.dump(content, f, ensure_ascii=False, separators=(",", ":"))
            f.write("\n")
        files.append(path)
    try:
        import tokenizers
    except ImportError:
        sys.exit("make_vectors.py: no python package `tokenizers` here: wrote only the synthetic files")
    result = {"made_by": "huggingface/tokenizers " + tokenizers.__version__, "files": []}
    for path in files:
        tok = tokenizers.Tokenizer.from_file(path)
        listed = encode_all(tok, path == model)
        name = path if path == model else "tests/vectors/tokenizer/" + os.path.basename(path)
        result["files"].append({"file": name, "cases": listed})
        print("%s: %d cases" % (name, len(listed)))
    with open(os.path.join(outdir, "vectors.json"), "w", encoding="ascii") as f:
        f.write('{"made_by": %s, "files": [\n' % json.dumps(result["made_by"]))
        for i, entry in enumerate(result["files"]):
            f.write('{"file": %s, "cases": [\n' % json.dumps(entry["file"]))
            f.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in entry["cases"]))
            f.write("\n]}%s\n" % ("," if i + 1 < len(result["files"]) else ""))
        f.write("]}\n")


main()
