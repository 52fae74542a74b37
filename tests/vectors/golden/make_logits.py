#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Golden logits of a model directory, quantized by `gttrun quantize` or not, from transformers in float32.

usage: make_logits.py MODEL_DIR PROMPTS.json OUTDIR [ROWS]      (needs torch, transformers, numpy)

PROMPTS.json: {"cases": [{"ids": [...]}, ...]}. Written: OUTDIR/logits_I.npy, float32 [ROWS, vocab], the last ROWS
positions (default 4) of each prompt, and OUTDIR/cases.json with ids and the greedy continuation.

The weights are dequantized here, in numpy, from the description of the file form alone (docs/design.md section 5):
NAME.q4 U8 [rows, cols/2], in each run of 32 elements along a row byte j holds element j in its low and 16 + j in its
high nibble; NAME.q8 I8 [rows, cols]; NAME.scale F16 [rows, cols/group]; optional NAME.bias F16.
w = scale * (q4 - 8), or scale * q + bias with a bias.
"""
import glob, json, struct, sys
import numpy as np, torch, transformers
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

model_dir, prompts, out = sys.argv[1:4]
rows = int(sys.argv[4]) if len(sys.argv) > 4 else 4
DT = {'U8': np.uint8, 'I8': np.int8, 'F16': np.float16, 'F32': np.float32, 'BF16': np.uint16}

raw = {}
for path in sorted(glob.glob(f'{model_dir}/*.safetensors')):
    with open(path, 'rb') as f:
        n, = struct.unpack('<Q', f.read(8))
        header = json.loads(f.read(n))
        data = f.read()
    for k, v in header.items():
        if k != '__metadata__':
            a, b = v['data_offsets']
            raw[k] = np.frombuffer(data[a:b], DT[v['dtype']]).reshape(v['shape']), v['dtype']

def dense(key):
    x, t = raw[key]
    return (x.astype(np.uint32) << 16).view(np.float32) if t == 'BF16' else x.astype(np.float32)

weights = {}
for key in raw:
    if key.endswith(('.q4', '.q8')):
        name = key[:-3]
        q = raw[key][0]
        if key.endswith('.q4'):
            pairs = q.reshape(q.shape[0], -1, 16)
            q = np.concatenate([pairs & 15, pairs >> 4], -1).reshape(q.shape[0], -1).astype(np.float32)
            if name + '.bias' not in raw:
                q = q - 8
        s = dense(name + '.scale')
        group = q.shape[1] // s.shape[1]
        w = q.astype(np.float32).reshape(q.shape[0], -1, group) * s[:, :, None]
        if name + '.bias' in raw:
            w = w + dense(name + '.bias')[:, :, None]
        weights[name] = w.reshape(q.shape[0], -1)
    elif not key.endswith(('.scale', '.bias')):
        weights[key] = dense(key)

cfg = json.load(open(f'{model_dir}/config.json'))
cfg.pop('quantization_config', None)
cfg = Gemma3TextConfig(**{k: v for k, v in cfg.items() if k not in ('architectures', 'model_type', 'dtype', 'torch_dtype')})
cfg._attn_implementation = 'eager'
model = Gemma3ForCausalLM(cfg).float().eval()
missing, unexpected = model.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in weights.items()},
                                            strict=False)
assert set(missing) <= {'lm_head.weight'} and not unexpected, (missing, unexpected)
model.tie_weights()

cases = []
with torch.no_grad():
    for i, case in enumerate(json.load(open(prompts))['cases']):
        ids = case['ids']
        logits = model(input_ids=torch.tensor([ids])).logits[0].float().numpy()
        np.save(f'{out}/logits_{i}.npy', logits[-rows:].astype(np.float32))
        cont = list(ids)
        for _ in range(48):
            cont.append(int(model(input_ids=torch.tensor([cont])).logits[0, -1].argmax()))
            if cont[-1] in (1, 106):
                break
        cases.append(dict(ids=ids, first_row=len(ids) - min(rows, len(ids)), greedy=cont[len(ids):]))
        print(i, len(ids), 'greedy', cases[-1]['greedy'][:12])
json.dump(dict(made_with=f'transformers {transformers.__version__}, torch {torch.__version__}, float32, eager, CPU',
               cases=cases), open(f'{out}/cases.json', 'w'))
