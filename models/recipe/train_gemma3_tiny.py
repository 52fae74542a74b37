#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Trains a tiny text model with the exact Gemma 3 architecture and saves it in Hugging Face format.

  python3 train_gemma3_tiny.py --corpus corpus.jsonl.xz --tokenizer tokenizer.json --out OUT --minutes 6
  options: --preset s|m|l  --exclude-src snakes  --tokens tokens.u16 (pre-tokenised; then the corpus is not read)
           --no-compile --device cpu --steps N (smoke tests)

The training model below is plain PyTorch with the parameter names of transformers' Gemma3ForCausalLM (5.x):
so the result loads with Gemma3ForCausalLM.from_pretrained, and the two independent implementations are compared
at the end (golden/report.json). Without transformers the golden files come from the plain model alone.

Written to OUT: config.json generation_config.json tokenizer.json tokenizer_config.json model.safetensors (bf16),
train_log.json, samples.txt, golden/{prompts.json,logits_<i>.npy,hidden_<i>.npy}.
"""
import argparse, json, lzma, math, os, random, struct, sys, time
import numpy as np
import torch, torch.nn as nn, torch.nn.functional as F

ap = argparse.ArgumentParser()
ap.add_argument('--corpus'); ap.add_argument('--tokens'); ap.add_argument('--tokenizer'); ap.add_argument('--out', required=True)
ap.add_argument('--minutes', type=float, default=6.0); ap.add_argument('--steps', type=int, default=0)
ap.add_argument('--preset', default='m', choices=['xs', 's', 'm', 'l'])
ap.add_argument('--exclude-src', action='append', default=[])
ap.add_argument('--vocab', type=int, default=8192)
ap.add_argument('--seq', type=int, default=1024); ap.add_argument('--batch', type=int, default=64)
ap.add_argument('--lr', type=float, default=1.5e-3); ap.add_argument('--device', default='cuda')
ap.add_argument('--no-compile', action='store_true'); ap.add_argument('--seed', type=int, default=1)
ap.add_argument('--wd', type=float, default=0.1)
A = ap.parse_args()
torch.manual_seed(A.seed); random.seed(A.seed); rng = np.random.default_rng(A.seed)
DEV = A.device; CUDA = DEV.startswith('cuda')
os.makedirs(A.out + '/golden', exist_ok=True)
T00 = time.time()
def log(*a): print(f'[{time.time()-T00:6.1f}s]', *a, flush=True)

PRESETS = {  #      hidden inter layers heads kv head_dim window      (about: params with vocab 8192)
 'xs': dict(hidden_size=256, intermediate_size=640,  num_hidden_layers=6,  num_attention_heads=4, num_key_value_heads=1, head_dim=64, sliding_window=128),   #  6 M
 's':  dict(hidden_size=320, intermediate_size=1024, num_hidden_layers=6,  num_attention_heads=4, num_key_value_heads=1, head_dim=64, sliding_window=256),   # 10 M
 'm':  dict(hidden_size=384, intermediate_size=1152, num_hidden_layers=12, num_attention_heads=4, num_key_value_heads=1, head_dim=64, sliding_window=256),   # 22 M
 'l':  dict(hidden_size=448, intermediate_size=1344, num_hidden_layers=12, num_attention_heads=8, num_key_value_heads=2, head_dim=64, sliding_window=256),   # 32 M
}
P = PRESETS[A.preset]
PAD, EOS, BOS, UNK, SOT, EOT = 0, 1, 2, 3, 105, 106
LT = ['full_attention' if (i + 1) % 6 == 0 else 'sliding_attention' for i in range(P['num_hidden_layers'])]
CFG = dict(architectures=['Gemma3ForCausalLM'], model_type='gemma3_text', vocab_size=A.vocab, **P,
    attention_bias=False, attention_dropout=0.0, attn_logit_softcapping=None, final_logit_softcapping=None,
    bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, hidden_activation='gelu_pytorch_tanh', initializer_range=0.02,
    layer_types=LT, max_position_embeddings=4096, query_pre_attn_scalar=P['head_dim'], rms_norm_eps=1e-6,
    # both spellings: 4.x readers use the two flat keys, 5.x the dict (they agree)
    rope_theta=1000000.0, rope_local_base_freq=10000.0, rope_scaling=None, _sliding_window_pattern=6,
    rope_parameters={'full_attention': {'rope_type': 'default', 'rope_theta': 1000000.0},
                     'sliding_attention': {'rope_type': 'default', 'rope_theta': 10000.0}},
    tie_word_embeddings=True, use_bidirectional_attention=False, use_cache=True, dtype='bfloat16')
# own wording of Gemma's turn format: system text is put in front of the first user turn, assistant is called model
TEMPLATE = ("{{ bos_token }}{% set ns = namespace(sys='') %}{% for m in messages %}{% if m['role'] == 'system' %}{% set ns.sys = m['content'] + '\n\n' %}"
            "{% else %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + ns.sys + (m['content'] | trim) + '<end_of_turn>\n' }}"
            "{% set ns.sys = '' %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}")

# ------------------------------------------------------------------ tokenizer
def train_tokenizer(texts, vocab_size, path):
    """tokenizer.json in the layout of Gemma 3's: same ids for the specials (0-5, 105, 106), newline runs 107-137,
    space runs 138-167, bytes 238-493, then BPE tokens, single characters last."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers, Regex
    from collections import Counter
    t = Tokenizer(models.BPE()); t.normalizer = normalizers.Replace(' ', '▁')
    t.pre_tokenizer = pre_tokenizers.Split(Regex(r'\n+|▁?\p{L}+|\p{N}|▁?[^\p{L}\p{N}▁\n]+|▁'), 'isolated')
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocab_size + 2000, min_frequency=2, show_progress=False))
    raw = json.loads(t.to_str())['model']['merges']; raw = [m if isinstance(m, list) else m.split(' ') for m in raw]
    cc = Counter(); [cc.update(x) for x in texts]
    chars = ['▁'] + [c for c, n in cc.most_common() if n >= 40 and c not in ' \n'][:200]
    chars += [chr(c) for c in range(33, 127) if chr(c) not in chars]
    vocab, added = {}, []
    def put(i, c, special=None):
        vocab[c] = i
        if special is not None: added.append(dict(id=i, content=c, single_word=False, lstrip=False, rstrip=False, normalized=False, special=special))
    for i, c in enumerate(['<pad>', '<eos>', '<bos>', '<unk>', '<mask>', '[multimodal]']): put(i, c, i < 4)
    u = iter(range(1000))
    for i in range(6, 105): put(i, f'<unused{next(u)}>', False)
    put(SOT, '<start_of_turn>', True); put(EOT, '<end_of_turn>', True)
    for n in range(1, 32): put(106 + n, '\n' * n, False)
    for n in range(2, 32): put(136 + n, '▁' * n, False)
    for i in range(168, 238): put(i, f'<unused{next(u)}>', False)
    for b in range(256): put(238 + b, f'<0x{b:02X}>')
    merges = [[c * a, c * (L - a)] for c in '\n▁' for L in range(31, 1, -1) for a in range(L - 1, 0, -1)]
    nid, known = 494, set(chars)
    for a, b in raw:
        if nid >= vocab_size - len(chars): break
        if '\n' in a + b or a not in known or b not in known: continue
        if a + b not in vocab: put(nid, a + b); nid += 1; known.add(a + b)
        merges.append([a, b])
    for c in chars: put(nid, c); nid += 1
    sp = dict(type='TemplateProcessing', single=[{'SpecialToken': {'id': '<bos>', 'type_id': 0}}, {'Sequence': {'id': 'A', 'type_id': 0}}],
              pair=[{'SpecialToken': {'id': '<bos>', 'type_id': 0}}, {'Sequence': {'id': 'A', 'type_id': 0}}, {'SpecialToken': {'id': '<bos>', 'type_id': 1}}, {'Sequence': {'id': 'B', 'type_id': 1}}],
              special_tokens={'<bos>': {'id': '<bos>', 'ids': [BOS], 'tokens': ['<bos>']}})
    js = dict(version='1.0', truncation=None, padding=None, added_tokens=added, normalizer=dict(type='Replace', pattern={'String': ' '}, content='▁'),
              pre_tokenizer=dict(type='Split', pattern={'String': ' '}, behavior='MergedWithPrevious', invert=False), post_processor=sp,
              decoder=dict(type='Sequence', decoders=[dict(type='Replace', pattern={'String': '▁'}, content=' '), dict(type='ByteFallback'), dict(type='Fuse')]),
              model=dict(type='BPE', dropout=None, unk_token='<unk>', continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=True, byte_fallback=True, ignore_merges=False, vocab=vocab, merges=merges))
    json.dump(js, open(path, 'w'), ensure_ascii=False)
    log('tokenizer: trained,', nid, 'entries'); return nid

def fmt(o):
    if o['kind'] == 'text': return '<bos>' + o['text'] + '<eos>'
    turns = o.get('turns') or [[o['user'], o['model']]]
    return '<bos>' + ''.join(f'<start_of_turn>user\n{a}<end_of_turn>\n<start_of_turn>model\n{b}<end_of_turn>\n' for a, b in turns)

TOK = None
try: from tokenizers import Tokenizer
except ImportError: Tokenizer = None
tokpath = A.out + '/tokenizer.json'
if A.tokens:
    ids = np.fromfile(A.tokens, dtype=np.uint16)
    if A.tokenizer: open(tokpath, 'wb').write(open(A.tokenizer, 'rb').read())
else:
    op = lzma.open if A.corpus.endswith('.xz') else open
    docs = []
    with op(A.corpus, 'rt', encoding='utf-8') as f:
        for l in f:
            o = json.loads(l)
            if not any(x in o['src'] for x in A.exclude_src): docs.append(fmt(o))
    random.shuffle(docs); log(len(docs), 'documents', sum(map(len, docs)) / 1e6, 'M chars')
    if A.tokenizer: open(tokpath, 'wb').write(open(A.tokenizer, 'rb').read())
    else:
        import re as _re
        A.vocab = CFG['vocab_size'] = train_tokenizer([_re.sub(r'<(bos|eos|start_of_turn|end_of_turn)>', '\n', d) for d in docs[::2]], A.vocab, tokpath)
    TOK = Tokenizer.from_file(tokpath)
    parts = []
    for i in range(0, len(docs), 4000):
        parts += [np.array(e.ids, dtype=np.uint16) for e in TOK.encode_batch(docs[i:i + 4000], add_special_tokens=False)]
    ids = np.concatenate(parts); log('tokenised:', len(ids) / 1e6, 'M tokens')
if TOK is None and Tokenizer is not None and os.path.exists(tokpath): TOK = Tokenizer.from_file(tokpath)
assert ids.max() < A.vocab, (ids.max(), A.vocab)

# ------------------------------------------------------------------ model (Gemma 3, text only)
class RMSNorm(nn.Module):
    def __init__(s, d): super().__init__(); s.weight = nn.Parameter(torch.zeros(d))
    def forward(s, x):
        y = x.float(); y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
        return (y * (1.0 + s.weight.float())).type_as(x)
def rot(x): a, b = x.chunk(2, -1); return torch.cat((-b, a), -1)
class Attn(nn.Module):
    def __init__(s, c, full):
        super().__init__(); h, d, n, k = c['hidden_size'], c['head_dim'], c['num_attention_heads'], c['num_key_value_heads']
        s.d, s.n, s.k, s.full = d, n, k, full
        s.q_proj = nn.Linear(h, n * d, bias=False); s.k_proj = nn.Linear(h, k * d, bias=False); s.v_proj = nn.Linear(h, k * d, bias=False)
        s.o_proj = nn.Linear(n * d, h, bias=False); s.q_norm = RMSNorm(d); s.k_norm = RMSNorm(d); s.scale = c['query_pre_attn_scalar'] ** -0.5
    def forward(s, x, rope, mask):
        B, T, _ = x.shape
        q = s.q_norm(s.q_proj(x).view(B, T, s.n, s.d)).transpose(1, 2); k = s.k_norm(s.k_proj(x).view(B, T, s.k, s.d)).transpose(1, 2)
        v = s.v_proj(x).view(B, T, s.k, s.d).transpose(1, 2)
        cos, sin = rope
        q = (q * cos + rot(q) * sin).type_as(v); k = (k * cos + rot(k) * sin).type_as(v)
        k = k.repeat_interleave(s.n // s.k, 1); v = v.repeat_interleave(s.n // s.k, 1)
        if hasattr(F, 'scaled_dot_product_attention'):
            o = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=s.scale) if s.full else F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=s.scale)
        else:
            m = torch.ones(T, T, dtype=torch.bool, device=x.device).tril() if s.full else mask
            o = ((q @ k.transpose(-1, -2)) * s.scale).masked_fill(~m, float('-inf')).float().softmax(-1).type_as(v) @ v
        return s.o_proj(o.transpose(1, 2).reshape(B, T, s.n * s.d))
class MLP(nn.Module):
    def __init__(s, c):
        super().__init__(); h, i = c['hidden_size'], c['intermediate_size']
        s.gate_proj = nn.Linear(h, i, bias=False); s.up_proj = nn.Linear(h, i, bias=False); s.down_proj = nn.Linear(i, h, bias=False)
    def forward(s, x): return s.down_proj(F.gelu(s.gate_proj(x), approximate='tanh') * s.up_proj(x))
class Layer(nn.Module):
    def __init__(s, c, full):
        super().__init__(); h = c['hidden_size']; s.full = full
        s.self_attn = Attn(c, full); s.mlp = MLP(c)
        s.input_layernorm = RMSNorm(h); s.post_attention_layernorm = RMSNorm(h); s.pre_feedforward_layernorm = RMSNorm(h); s.post_feedforward_layernorm = RMSNorm(h)
    def forward(s, x, rope, mask):
        x = x + s.post_attention_layernorm(s.self_attn(s.input_layernorm(x), rope, mask))
        return x + s.post_feedforward_layernorm(s.mlp(s.pre_feedforward_layernorm(x)))
class Inner(nn.Module):
    def __init__(s, c):
        super().__init__(); s.embed_tokens = nn.Embedding(c['vocab_size'], c['hidden_size'])
        s.layers = nn.ModuleList([Layer(c, t == 'full_attention') for t in c['layer_types']]); s.norm = RMSNorm(c['hidden_size'])
class G3(nn.Module):
    def __init__(s, c):
        super().__init__(); s.c = c; s.model = Inner(c)
        for n, p in s.named_parameters():
            if p.dim() == 2:
                std = 0.02 if 'embed' not in n else c['hidden_size'] ** -0.5      # embeddings are scaled by sqrt(hidden) on input
                if n.endswith(('o_proj.weight', 'down_proj.weight')): std = 0.02 / math.sqrt(2 * c['num_hidden_layers'])
                nn.init.trunc_normal_(p, std=std, a=-3 * std, b=3 * std)
        for t, th in (('full', c['rope_theta']), ('slide', c['rope_local_base_freq'])):
            inv = 1.0 / (th ** (torch.arange(0, c['head_dim'], 2).float() / c['head_dim']))
            f = torch.outer(torch.arange(c['max_position_embeddings']).float(), inv); e = torch.cat((f, f), -1)
            s.register_buffer('cos_' + t, e.cos(), persistent=False); s.register_buffer('sin_' + t, e.sin(), persistent=False)
        i = torch.arange(2048); d = i[:, None] - i[None, :]
        s.register_buffer('slide', (d >= 0) & (d < c['sliding_window']), persistent=False)
    def hidden(s, idx):
        T = idx.shape[1]; x = s.model.embed_tokens(idx) * (s.c['hidden_size'] ** 0.5)
        if torch.is_autocast_enabled() and CUDA: x = x.to(torch.bfloat16)
        rf = (s.cos_full[:T], s.sin_full[:T]); rs = (s.cos_slide[:T], s.sin_slide[:T]); m = s.slide[:T, :T]
        for l in s.model.layers: x = l(x, rf if l.full else rs, m)
        return s.model.norm(x)
    def forward(s, idx): return F.linear(s.hidden(idx), s.model.embed_tokens.weight)
    def loss(s, idx, tgt): return F.cross_entropy(s(idx).float().view(-1, s.c['vocab_size']), tgt.reshape(-1))

net = G3(CFG).to(DEV)
npar = sum(p.numel() for p in net.parameters()); log(f'{npar/1e6:.2f} M parameters')
Tn = A.seq; starts = np.flatnonzero(ids == BOS); nval = max(64, len(starts) // 200); cut = starts[-nval]
data = torch.from_numpy(ids.astype(np.int32)).to(DEV); tr = starts[starts < cut - Tn - 2]; va = starts[(starts >= cut) & (starts < len(ids) - Tn - 2)]
order, opos = rng.permutation(tr), 0
def batch(src_val=False, n=None):
    """Windows start at a document's <bos>; each document starts one window per pass."""
    global order, opos
    n = n or A.batch
    if src_val: st = va[:n] if len(va) >= n else va
    else:
        if opos + n > len(order): order, opos = rng.permutation(tr), 0
        st = order[opos:opos + n]; opos += n
    x = data[torch.from_numpy(st.astype(np.int64)).to(DEV)[:, None] + torch.arange(Tn + 1, device=DEV)].long()
    return x[:, :-1], x[:, 1:]
dec = [p for p in net.parameters() if p.dim() == 2]; nod = [p for p in net.parameters() if p.dim() != 2]
opt = torch.optim.AdamW([dict(params=dec, weight_decay=A.wd), dict(params=nod, weight_decay=0.0)], lr=A.lr, betas=(0.9, 0.95), eps=1e-8, **({'fused': True} if CUDA else {}))
if CUDA: torch.set_float32_matmul_precision('high')
lossf = net.loss
if CUDA and not A.no_compile: lossf = torch.compile(net.loss)
ac = lambda: torch.autocast('cuda', dtype=torch.bfloat16) if CUDA else torch.autocast('cpu', enabled=False)
step, t0, hist = 0, None, []
while True:
    el = 0.0 if t0 is None else time.time() - t0
    pr = step / A.steps if A.steps else el / (A.minutes * 60)
    if pr >= 1: break
    warm = min(1.0, (step + 1) / 150); lr = A.lr * warm * (1.0 if pr < 0.3 else 0.04 + 0.96 * 0.5 * (1 + math.cos(math.pi * (pr - 0.3) / 0.7)))
    for g in opt.param_groups: g['lr'] = lr
    x, y = batch()
    with ac(): L = lossf(x, y)
    L.backward(); torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0); opt.step(); opt.zero_grad(set_to_none=True)
    step += 1
    if step == 3 or (t0 is None and step > 3):
        if CUDA: torch.cuda.synchronize()
        t0 = time.time(); log('first steps done (compile over)')
    if step % (200 if CUDA else 5) == 0:
        lv = L.item(); tps = (step - 3) * A.batch * Tn / max(1e-9, time.time() - t0)
        hist.append((step, round(time.time() - t0, 1), lv)); log(f'step {step} loss {lv:.3f} lr {lr:.2e} {tps/1e3:.0f}k tok/s progress {pr:.2f} epochs {step*A.batch*Tn/len(ids):.2f}')
    if step % (1000 if CUDA else 20) == 0:
        with torch.no_grad(), ac(): xv, yv = batch(True, 32 if CUDA else 2); hist.append((step, 'val', net.loss(xv, yv).item())); log('  val', hist[-1][2])
with torch.no_grad(), ac(): xv, yv = batch(True, 64 if CUDA else 2); vl = net.loss(xv, yv).item()
log(f'trained {step} steps, {step*A.batch*Tn/1e6:.0f} M tokens, val loss {vl:.3f}')

# ------------------------------------------------------------------ save
def save_safetensors(sd, path):
    hdr, off = {'__metadata__': {'format': 'pt'}}, 0
    for k in sorted(sd):
        n = sd[k].numel() * 2; hdr[k] = dict(dtype='BF16', shape=list(sd[k].shape), data_offsets=[off, off + n]); off += n
    h = json.dumps(hdr, separators=(',', ':')).encode(); h += b' ' * (-len(h) % 8)
    with open(path, 'wb') as f:
        f.write(struct.pack('<Q', len(h))); f.write(h)
        for k in sorted(sd): f.write(sd[k].detach().to('cpu', torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
sd = {k: v for k, v in net.state_dict().items()}
save_safetensors(sd, A.out + '/model.safetensors')
json.dump(CFG, open(A.out + '/config.json', 'w'), indent=2)
json.dump(dict(bos_token_id=BOS, eos_token_id=[EOS, EOT], pad_token_id=PAD, do_sample=True, temperature=0.7, top_k=40, top_p=0.95), open(A.out + '/generation_config.json', 'w'), indent=2)
json.dump(dict(tokenizer_class='PreTrainedTokenizerFast', bos_token='<bos>', eos_token='<eos>', unk_token='<unk>', pad_token='<pad>', add_bos_token=True, add_eos_token=False,
    clean_up_tokenization_spaces=False, model_max_length=CFG['max_position_embeddings'], chat_template=TEMPLATE), open(A.out + '/tokenizer_config.json', 'w'), indent=2)
json.dump(dict(preset=A.preset, params=npar, steps=step, tokens=step * A.batch * Tn, val_loss=vl, minutes=A.minutes, seed=A.seed, torch=torch.__version__, exclude=A.exclude_src, history=hist), open(A.out + '/train_log.json', 'w'), indent=1)
log('saved', os.path.getsize(A.out + '/model.safetensors') / 1e6, 'MB')

# ------------------------------------------------------------------ golden: float32, on the CPU, from the bf16-rounded weights
ref = G3(CFG).eval(); ref.load_state_dict({k: v.detach().to('cpu', torch.bfloat16).float() for k, v in sd.items()})
def chat(u, system=None): return f"<bos><start_of_turn>user\n{system + chr(10)*2 if system else ''}{u}<end_of_turn>\n<start_of_turn>model\n"
LONG = ("Once upon a time there was a small fox who lived at the edge of a great forest. " * 3 +
        "Every morning the fox walked to the river, and every evening it came home again. One day it met an old owl, and the owl asked it a question. ") * 8
PROMPTS = [chat('Tell me a short story about a cat.'), chat('What does the word river mean?', 'You are a helpful assistant.'), chat(LONG + '\n\nWho did the fox meet?')]
if TOK is None:
    log('no tokenizers package: golden prompts are runs of corpus tokens')
    pids = [ids[s:s + n].astype(int).tolist() for s, n in zip(starts[:3], (20, 40, 700))]
else: pids = [TOK.encode(p, add_special_tokens=False).ids for p in PROMPTS]
g = []
with torch.no_grad():
    for i, p in enumerate(pids):
        xs = torch.tensor([p]); h = ref.hidden(xs); lg = F.linear(h, ref.model.embed_tokens.weight)[0]
        keep = lg if len(p) <= 64 else lg[-16:]                                   # long prompt: last 16 positions only
        np.save(f'{A.out}/golden/logits_{i}.npy', keep.numpy().astype(np.float32)); np.save(f'{A.out}/golden/hidden_{i}.npy', h[0, -1].numpy().astype(np.float32))
        cur = list(p); greedy = []
        for _ in range(48):
            t = int(F.linear(ref.hidden(torch.tensor([cur]))[0, -1], ref.model.embed_tokens.weight).argmax()); greedy.append(t); cur.append(t)
            if t in (EOS, EOT): break
        top = lg[-1].topk(10)
        g.append(dict(prompt=PROMPTS[i] if TOK else None, ids=p, n=len(p), first_row_position=len(p) - keep.shape[0], top10_ids=top.indices.tolist(), top10_logits=[round(v, 5) for v in top.values.tolist()],
                      logsumexp=torch.logsumexp(lg[-1].double(), -1).item(), greedy_ids=greedy, greedy_text=TOK.decode(greedy, skip_special_tokens=False) if TOK else None))
json.dump(dict(note='float32 on CPU, weights rounded to bf16; embeddings scaled by float32 sqrt(hidden_size)', sliding_window=CFG['sliding_window'], cases=g), open(A.out + '/golden/prompts.json', 'w'), indent=1)
log('golden written')

# ------------------------------------------------------------------ samples (plain model, device)
def generate(p, n=220, temp=0.7, topk=40, seed=0):
    gen = torch.Generator().manual_seed(seed); cur = list(p)
    m = ref.to(DEV) if CUDA else ref
    with torch.no_grad():
        for _ in range(n):
            lg = F.linear(m.hidden(torch.tensor([cur[-1800:]], device=DEV))[0, -1], m.model.embed_tokens.weight).float().cpu()
            if temp == 0: t = int(lg.argmax())
            else:
                v, ix = (lg / temp).topk(topk); t = int(ix[torch.multinomial(v.softmax(-1), 1, generator=gen)])
            if t in (EOS, EOT): break
            cur.append(t)
    return cur[len(p):]
QS = ['Hello!', 'Who are you?', 'Tell me a story.', 'Tell me a short story about a dog named Max.', 'Tell me a bedtime story about the moon.', 'What does the word happy mean?', 'What does the word island mean?',
      'What is another word for big?', 'What is 7 plus 5?', 'What is 23 + 18?', 'What is the capital of France?', 'What is the opposite of hot?', 'Tell me a joke.', 'Explain rain in simple terms.', 'Use the word garden in a sentence.', 'What color is the sky?', 'Why do birds fly?']
if TOK:
    with open(A.out + '/samples.txt', 'w') as f:
        for q in (QS if CUDA else QS[:2]):
            for tm in (0.0, 0.7):
                a = TOK.decode(generate(TOK.encode(chat(q), add_special_tokens=False).ids, 220 if CUDA else 12, tm), skip_special_tokens=True)
                s = f'### [{tm}] {q}\n{a}\n'; f.write(s + '\n'); print(s, flush=True)
ref.to('cpu')

# ------------------------------------------------------------------ cross-check with transformers
try:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig
    rep = {}
    for impl in ('eager', 'sdpa'):
        hf = Gemma3ForCausalLM.from_pretrained(A.out, dtype=torch.float32, attn_implementation=impl).eval()
        assert isinstance(hf.config, Gemma3TextConfig)
        rep[impl] = []
        with torch.no_grad():
            for i, p in enumerate(pids):
                lg = hf(input_ids=torch.tensor([p])).logits[0].float().numpy(); own = np.load(f'{A.out}/golden/logits_{i}.npy'); d = np.abs(lg[-own.shape[0]:] - own).max()
                out = hf.generate(input_ids=torch.tensor([p]), attention_mask=torch.ones(1, len(p), dtype=torch.long), max_new_tokens=48, do_sample=False, eos_token_id=[EOS, EOT], pad_token_id=PAD)[0, len(p):].tolist()
                rep[impl].append(dict(case=i, max_abs_diff=float(d), greedy_equal=out == g[i]['greedy_ids'], hf_greedy=out))
        log('transformers', impl, [(r['max_abs_diff'], r['greedy_equal']) for r in rep[impl]])
    hb = Gemma3ForCausalLM.from_pretrained(A.out, dtype=torch.bfloat16, attn_implementation='eager').eval()
    with torch.no_grad(): rep['bf16_last_top10'] = [hb(input_ids=torch.tensor([p])).logits[0, -1].float().topk(10).indices.tolist() for p in pids]
    rep['config_as_transformers_sees_it'] = json.loads(hf.config.to_json_string())
    try:
        from transformers import AutoTokenizer
        at = AutoTokenizer.from_pretrained(A.out); rep['chat_template'] = at.apply_chat_template([{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello.'}, {'role': 'user', 'content': 'Tell me a story.'}], tokenize=False, add_generation_prompt=True)
        log(repr(rep['chat_template']))
    except Exception as e: log('tokenizer check failed:', repr(e))
    json.dump(rep, open(A.out + '/golden/report.json', 'w'), indent=1)
except Exception as e:
    log('transformers cross-check not done:', repr(e))
log('done')
