#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes quirks/: a small random bf16 model with everything that is odd about Gemma 3, and its logits.

usage: make_quirks.py OUTDIR        (needs torch, transformers, numpy)

What is odd: head_dim is not hidden / heads, the query scale is not head_dim ** -0.5, grouped queries, a window shorter
than the prompt, global layers with linear RoPE scaling, a config.json of Gemma3ForConditionalGeneration with its
text_config, tensor names with the `language_model.` prefix, vision tensors to be passed over, files named `_shared` and
`_layer_N` without an index, norms far from 1, a vocabulary that is no round number.

The logits come from transformers' Gemma3ForCausalLM in float32 on the CPU (eager attention) from the bf16 weights:
an implementation independent of this project's.
"""
import json, os, struct, sys
import numpy as np, torch, transformers
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
torch.manual_seed(20260101)

text = dict(
    model_type='gemma3_text', vocab_size=523, hidden_size=160, intermediate_size=416, num_hidden_layers=5,
    num_attention_heads=4, num_key_value_heads=2, head_dim=64, query_pre_attn_scalar=40, sliding_window=16,
    max_position_embeddings=2048, rms_norm_eps=1e-6, rope_theta=1000000.0, rope_local_base_freq=10000.0,
    rope_scaling={'factor': 8.0, 'rope_type': 'linear'}, sliding_window_pattern=3,
    hidden_activation='gelu_pytorch_tanh', attention_bias=False, attn_logit_softcapping=None,
    final_logit_softcapping=None, tie_word_embeddings=True, bos_token_id=2, eos_token_id=1, pad_token_id=0)
layer_types = ['full_attention' if (i + 1) % 3 == 0 else 'sliding_attention' for i in range(5)]

kwargs = {k: v for k, v in text.items() if k not in ('model_type', 'sliding_window_pattern')}
config = Gemma3TextConfig(**kwargs, layer_types=layer_types)
print('rope as transformers sees it:', getattr(config, 'rope_parameters', None) or config.rope_scaling)
config._attn_implementation = 'eager'
model = Gemma3ForCausalLM(config).float().eval()
with torch.no_grad():
    for name, p in model.named_parameters():
        if p.dim() == 2:
            std = 1.0 if 'embed' in name else 1.5 / p.shape[1] ** 0.5
            if 'embed' in name:
                std = p.shape[1] ** -0.5
            p.normal_(0, std)
        else:
            p.normal_(0, 0.4)
        p.copy_(p.to(torch.bfloat16).float())

ids = torch.randint(3, text['vocab_size'], (1, 70))
ids[0, 0] = 2
with torch.no_grad():
    logits = model(input_ids=ids).logits[0].float().numpy()
print('logits', logits.shape, 'std', logits.std(), 'largest', np.abs(logits).max())
assert model.model.rotary_emb is not None

# ---- files
def save(path, tensors):
    header, off = {'__metadata__': {'format': 'pt'}}, 0
    for k in sorted(tensors):
        n = tensors[k].numel() * 2
        header[k] = dict(dtype='BF16', shape=list(tensors[k].shape), data_offsets=[off, off + n])
        off += n
    h = json.dumps(header, separators=(',', ':')).encode()
    h += b' ' * (-len(h) % 8)
    with open(path, 'wb') as f:
        f.write(struct.pack('<Q', len(h)) + h)
        for k in sorted(tensors):
            f.write(tensors[k].to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())

shared, layers = {}, [{} for _ in range(5)]
for name, p in model.named_parameters():
    full = 'language_model.' + name
    if '.layers.' in name:
        layers[int(name.split('.layers.')[1].split('.')[0])][full] = p.detach()
    else:
        shared[full] = p.detach()
shared['vision_tower.vision_model.post_layernorm.weight'] = torch.ones(8)
shared['multi_modal_projector.mm_soft_emb_norm.weight'] = torch.zeros(8)
save(f'{out}/model-00001-of-00006_shared.safetensors', shared)
for i, tensors in enumerate(layers):
    save(f'{out}/model-{i + 2:05d}-of-00006_layer_{i}.safetensors', tensors)
json.dump(dict(architectures=['Gemma3ForConditionalGeneration'], model_type='gemma3', text_config=text,
               vision_config=dict(hidden_size=8, model_type='siglip_vision_model'), eos_token_id=[1, 106],
               torch_dtype='bfloat16'), open(f'{out}/config.json', 'w'), indent=2)
np.save(f'{out}/logits.npy', logits.astype(np.float32))
json.dump(dict(ids=ids[0].tolist(), made_with=f'transformers {transformers.__version__}, torch {torch.__version__}, '
               'float32, eager attention, CPU'), open(f'{out}/case.json', 'w'))
