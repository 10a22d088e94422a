"""Training steps of NNI 3.0 and torch.ao on PyTorch, for `cargo xtask bench overhead --peers`.

The networks, batches, optimizer and rules are those of the program `bench_overhead`. All variants
alternate step by step in one process: each compressor trains in a thread of its own, in NNI's own
loop, and waits for its turn. Prints rows as JSON, with the keys of the program's.

    python overhead.py --model digits --batch 64 --rounds 31

NNI's pruners, quantizers and distillers run as they are on PyTorch 2.9, on which nothing else of NNI
was tried. The quantization of torch.ao is that of its graph mode, with the types of FBGEMM: batch norms
folded into convolutions, weights by output channel, and the inputs and outputs of whatever is fused.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

WARM_UP = 8  # steps before the first that counts
WEIGHED = 4  # steps whose peak of memory is taken
INTERVAL = 2  # steps between two updates of the pruning schedule, of which there are as many
SPARSITY = 0.8
STEPS = 1_000_000  # a run that no measurement reaches the end of
BATCHES = 8
TORCH = f"PyTorch {torch.__version__.split('+')[0]}"
NNI = f"NNI 3.0, {TORCH}"
AO = f"torch.ao, {TORCH}"


# The networks.


def conv(channels, width, kernel, stride):
    return nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)


class Block(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(channels, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, 1), nn.BatchNorm2d(width)
        self.shortcut = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(conv(channels, width, 1, stride), nn.BatchNorm2d(width))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, channels, widths, kernel, stride, pools, classes):
        super().__init__()
        self.stem, self.bn = conv(channels, widths[0], kernel, stride), nn.BatchNorm2d(widths[0])
        self.max_pool = nn.MaxPool2d(3, 2, 1) if pools else nn.Identity()
        blocks, inputs = [], widths[0]
        for index, width in enumerate(widths):
            blocks += [Block(inputs, width, 2 if index else 1), Block(width, width, 1)]
            inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.blocks(self.max_pool(F.relu(self.bn(self.stem(x)))))
        return self.head(torch.flatten(self.pool(x), 1))


def network(model):
    if model == "digits":
        return ResNet(1, [32, 64, 128], 3, 1, False, 10)
    return ResNet(3, [64, 128, 256, 512], 7, 2, True, 1000)


def batches(model, batch, device):
    if model == "digits":
        file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../data/digits.csv")
        with open(file) as lines:
            rows = [list(map(float, line.split(","))) for line in list(lines)[1:1438]]
        data = torch.tensor(rows)
        images = ((data[:, :64] / 16 - 0.3053) / 0.3761).reshape(-1, 1, 8, 8)
        labels = data[:, 64].long()
    else:
        images = torch.randn(BATCHES * batch, 3, 64, 64)
        labels = torch.arange(BATCHES * batch) % 1000
    count = max(1, min(BATCHES, len(images) // batch))
    parts = [slice(index * batch, (index + 1) * batch) for index in range(count)]
    return [(images[part].to(device), labels[part].to(device)) for part in parts]


# The variants: each is a function that is given `train`, a training loop for NNI.


def loss_of(batch, model):
    return F.cross_entropy(model(batch[0]), batch[1])


def adam(model, make=torch.optim.Adam):
    return make(model.parameters(), lr=1e-3, eps=1e-8)


def pruning():
    return [{"op_types": ["Conv2d"], "sparse_ratio": SPARSITY}]


def quantization(per_channel):
    def target(granularity):
        return {"quant_dtype": "int8", "granularity": granularity}

    if not per_channel:
        settings = {"_input_": target("default"), "weight": target("out_channel")}
        names = ["_input_", "weight"]
        return [
            {
                "op_types": ["Conv2d", "Linear"],
                "quant_dtype": "int8",
                "target_names": names,
                "target_settings": settings,
            }
        ]
    return [
        {
            "op_types": ["Conv2d"],
            "quant_dtype": "int8",
            "target_names": ["_input_", "weight"],
            "target_settings": {"_input_": target("per_channel"), "weight": target("out_channel")},
        },
        {
            "op_types": ["BatchNorm2d"],
            "quant_dtype": "int8",
            "target_names": ["_output_"],
            "target_settings": {"_output_": target("per_channel")},
        },
    ]


def compress(args, train, parts, per_channel=False):
    """Fuses the named compressors and trains."""
    import nni
    from nni.compression import TorchEvaluator
    from nni.compression.distillation import DynamicLayerwiseDistiller
    from nni.compression.pruning import AGPPruner, TaylorPruner
    from nni.compression.quantization import QATQuantizer

    model = network(args.model).to(args.device)

    def training(model, optimizers, training_step, *_args, **_kwargs):
        model.train()

        def step(batch):
            optimizers.zero_grad()
            loss = training_step(batch, model)
            loss.item()
            loss.backward()
            optimizers.step()

        train(step)

    evaluator = TorchEvaluator(training, adam(model, nni.trace(torch.optim.Adam)), loss_of)
    chain = None
    if "P" in parts:
        chain = TaylorPruner(model, pruning(), evaluator, training_steps=INTERVAL)
        chain = AGPPruner(chain, interval_steps=INTERVAL, total_times=INTERVAL)
    if "Q" in parts:
        rules = quantization(per_channel)
        if chain is None:
            chain = QATQuantizer(model, rules, evaluator, quant_start_step=1)
        else:
            chain = QATQuantizer.from_compressor(chain, rules, quant_start_step=1)
    if "D" in parts:
        rules = [{"op_types": ["Conv2d"], "lambda": 0.1, "apply_method": "mse"}]
        teacher = network(args.model).to(args.device).eval()

        def forward(batch, teacher):
            return teacher(batch[0])

        if chain is None:
            chain = DynamicLayerwiseDistiller(
                model, rules, evaluator, teacher, forward, origin_loss_lambda=0.1
            )
        else:
            chain = DynamicLayerwiseDistiller.from_compressor(
                chain, rules, teacher, forward, origin_loss_lambda=0.1
            )
    chain.compress(STEPS, None)


def plain(args, train):
    model = network(args.model).to(args.device)
    optimizer = adam(model)
    model.train()

    def step(batch):
        optimizer.zero_grad()
        loss = loss_of(batch, model)
        loss.item()
        loss.backward()
        optimizer.step()

    train(step)


def teacher(args, train):
    model = network(args.model).to(args.device).eval()

    def step(batch):
        with torch.no_grad():
            model(batch[0])

    train(step)


def ao(args, train):
    from torch.ao.quantization import get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    example = (batches(args.model, args.batch, "cpu")[0][0],)
    model = network(args.model).train()
    model = prepare_qat_fx(model, get_default_qat_qconfig_mapping("fbgemm"), example)
    model = model.to(args.device)
    optimizer = adam(model)

    def step(batch):
        optimizer.zero_grad()
        loss = loss_of(batch, model)
        loss.item()
        loss.backward()
        optimizer.step()

    train(step)


def variants():
    def nni(*parts, per_channel=False):
        return lambda args, train: compress(args, train, parts, per_channel)

    return [
        (NNI, "plain", plain),
        (NNI, "teacher", teacher),
        (NNI, "P", nni("P")),
        (NNI, "Q", nni("Q")),
        (NNI, "D", nni("D")),
        (NNI, "P+Q", nni("P", "Q")),
        (NNI, "P+Q+D", nni("P", "Q", "D")),
        (NNI, "Q-per-channel", nni("Q", per_channel=True)),
        (NNI, "P+Q+D-per-channel", nni("P", "Q", "D", per_channel=True)),
        (AO, "Q", ao),
    ]


# Steps in turns.


class Stop(Exception):
    """Ends a training loop that nobody waits for any more."""


class Variant:
    """A training loop in a thread of its own, which makes a step when it is asked to."""

    def __init__(self, args, run, data):
        self.turn, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.error, self.stopped = None, False
        self.args, self.data, self.made = args, data, 0
        self.thread = threading.Thread(target=self.start, args=(run,), daemon=True)
        self.thread.start()
        self.wait()  # one after another, as they import modules

    def start(self, run):
        try:
            run(self.args, self.train)
            self.error = RuntimeError("the training ended early")
        except Stop:
            pass
        except BaseException as error:  # shown by the main thread
            self.error = error
        self.done.release()

    def train(self, step):
        self.done.release()
        while True:
            self.turn.acquire()
            if self.stopped:
                raise Stop
            wall, cpu = time.perf_counter_ns(), time.process_time_ns()
            step(self.data[self.made % len(self.data)])
            if self.args.device == "cuda":
                torch.cuda.synchronize()
            self.cpu = (time.process_time_ns() - cpu) / 1e6
            self.wall = (time.perf_counter_ns() - wall) / 1e6
            self.made += 1
            self.done.release()

    def step(self):
        self.turn.release()
        self.wait()
        return self.wall, self.cpu

    def wait(self):
        self.done.acquire()
        if self.error is not None:
            raise self.error

    def stop(self):
        self.stopped = True
        self.turn.release()
        self.thread.join()


def quartiles(values):
    values, last = sorted(values), len(values) - 1
    first, median, third = (values[last * quarter // 4] for quarter in (1, 2, 3))
    return {"first": first, "median": median, "third": third}


def measure(args):
    data = batches(args.model, args.batch, args.device)
    chosen = variants()
    loops = [Variant(args, run, data) for _, _, run in chosen]
    for loop in loops:
        for _ in range(WARM_UP):
            loop.step()
    samples, start = [[] for _ in loops], time.perf_counter()
    for done in range(args.rounds):
        if done >= 3 and time.perf_counter() - start > args.seconds:
            break
        for loop, times in zip(loops, samples):
            times.append(loop.step())
    for loop in loops:
        loop.stop()
    rows, by = [], 0 if args.device == "cuda" else 1
    for (library, variant, _), times in zip(chosen, samples):
        ratios = [own[by] / plain[by] for own, plain in zip(times, samples[0])]
        rows.append(
            {
                "library": library,
                "device": args.device,
                "model": args.model,
                "batch": args.batch,
                "variant": variant,
                "rounds": len(times),
                "wall": quartiles([wall for wall, _ in times]),
                "cpu": quartiles([cpu for _, cpu in times]),
                "ratio": quartiles(ratios),
                "reads": None,
                "memory": memory(args, library, variant),
            }
        )
    return rows


# Memory.


def status(key):
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    return None


def memory(args, library, variant):
    """Bytes of a process that makes these steps alone, as the program measures them."""
    is_weighed = variant in ("plain", "teacher", "P+Q+D") and library == NNI
    if not is_weighed or args.device != "cpu" or not os.path.exists("/proc/self/clear_refs"):
        return None
    command = [sys.executable, __file__, "--model", args.model, "--batch", str(args.batch)]
    command += ["--threads", str(args.threads), "--weigh", variant]
    found = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return int(found.split()[-1])


def weigh(args):
    data = batches(args.model, args.batch, args.device)
    import nni.compression.distillation  # noqa: F401
    import nni.compression.pruning  # noqa: F401
    import nni.compression.quantization  # noqa: F401

    start = status("VmRSS:")
    (run,) = [run for library, name, run in variants() if (library, name) == (NNI, args.weigh)]
    loop = Variant(args, run, data)
    for _ in range(WARM_UP):
        loop.step()
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")
    for _ in range(WEIGHED):
        loop.step()
    print(max(0, status("VmHWM:") - start))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["digits", "resnet18"], default="digits")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--weigh", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    # What libraries print is not for whoever reads the rows.
    out, sys.stdout = sys.stdout, sys.stderr
    if args.weigh:
        sys.stdout = out
        weigh(args)
    else:
        rows = measure(args)
        print(json.dumps(rows), file=out)
    out.flush()
    os._exit(0)  # without waiting for threads of the libraries


if __name__ == "__main__":
    main()
