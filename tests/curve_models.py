"""The three little trainings whose losses are compared with PyTorch's: each runs with either package given as ``torch``.

``tools/record_curves.py`` runs them with PyTorch and keeps what came out in ``tests/data_curves``.
"""

STEPS = 100


def mlp(torch):
    """Linear, tanh and GELU, cross entropy, Adam; batches drawn with randperm."""
    nn, F = torch.nn, torch.nn.functional
    torch.manual_seed(1)
    x = torch.randn(256, 20)
    y = (x[:, :5].sum(1) > 0).long() + (x[:, 5] > 0.5).long()
    model = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def losses():
        step = 0
        while step < STEPS:
            for batch in torch.randperm(256).split(64):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x[batch]), y[batch])
                loss.backward()
                optimizer.step()
                step += 1
                yield loss.item()

    return model, losses()


def convnet(torch):
    """Convolutions with batch norm, max pool, weight decay, momentum, a schedule of the learning rate."""
    nn, F = torch.nn, torch.nn.functional
    torch.manual_seed(2)
    x = torch.rand(96, 1, 12, 12)
    y = (x[:, 0, :6].mean((1, 2)) > x[:, 0, 6:].mean((1, 2))).long()
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 9, 2),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    data = torch.utils.data.TensorDataset(x, y)
    loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True)

    def losses():
        step = 0
        while step < STEPS:
            for bx, by in loader:
                if step == STEPS:
                    return
                optimizer.zero_grad()
                loss = F.cross_entropy(model(bx), by)
                loss.backward()
                optimizer.step()
                schedule.step()
                step += 1
                yield loss.item()

    return model, losses()


def transformer(torch):
    """Embedding, a pre-norm encoder layer under a causal mask, an LSTM, AdamW, clipped gradients."""
    nn, F = torch.nn, torch.nn.functional
    torch.manual_seed(3)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(16, 24)
            self.encoder = nn.TransformerEncoderLayer(24, 4, 48, dropout=0.0, batch_first=True, norm_first=True)
            self.lstm = nn.LSTM(24, 24, batch_first=True)
            self.norm = nn.LayerNorm(24)
            self.head = nn.Linear(24, 16)

        def forward(self, tokens, mask):
            h = self.encoder(self.embed(tokens), src_mask=mask)
            h = h + self.lstm(h)[0]
            return self.head(self.norm(h))

    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    mask = nn.Transformer.generate_square_subsequent_mask(12)

    def losses():
        for _ in range(STEPS):
            start = torch.randint(0, 16, (8, 1))
            tokens = (start + 3 * torch.arange(13)) % 16
            logits = model(tokens[:, :-1], mask)
            loss = F.cross_entropy(logits.reshape(-1, 16), tokens[:, 1:].reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            yield loss.item()

    return model, losses()


MODELS = {"mlp": mlp, "convnet": convnet, "transformer": transformer}


def run(name, torch):
    """(the initial weights as lists of numbers, the losses)."""
    model, losses = MODELS[name](torch)
    weights = {k: v.detach().double().flatten().tolist() for k, v in model.state_dict().items()}
    return weights, list(losses)
