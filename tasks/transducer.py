"""A transducer on an encoder's states: a network of the symbols so far, a joint one, greedy decoding (Graves 2012)."""
# B batch, T frames, U symbols of a row, V outputs (the last is blank), D width of states, J width of the joint network

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = tuple[Tensor, Tensor]  # of an LSTM, each (1, B, predictor width)


class Transducer(nn.Module):
    """logits(t, u) = W ReLU(W_e state_t + W_p g_u), g the states of an LSTM that reads the symbols so far.

    As NeMo has it (`RNNTDecoder`, `RNNTJoint` with its recipes' ReLU): nothing yet is a vector of zeros.
    """

    def __init__(self, *, dim: int, outputs: int, predictor: int, joint: int) -> None:
        super().__init__()
        self.blank = outputs - 1
        self.table = nn.Embedding(outputs, predictor, padding_idx=self.blank)
        self.lstm = nn.LSTM(predictor, predictor, batch_first=True)
        self.of_state, self.of_past = nn.Linear(dim, joint), nn.Linear(predictor, joint)
        self.out = nn.Linear(joint, outputs)

    def forward(self, states_BTD: Tensor, label_BU: Tensor) -> Tensor:
        """Logits (B, T, U + 1, V) of each frame after each number of symbols."""
        begun_BU = F.pad(label_BU, (1, 0), value=self.blank)
        g_BUJ = self.of_past(self.lstm(self.table(begun_BU))[0])
        logits_BTUV: Tensor = self.out(F.relu(self.of_state(states_BTD)[:, :, None] + g_BUJ[:, None]))
        return logits_BTUV

    def greedy(self, states_BTD: Tensor, frames_B: Tensor, *, most: int) -> list[list[int]]:
        """The symbols of each row: at each frame the likeliest outputs until one is blank, `most` at the most."""
        found: list[list[int]] = [[] for _ in states_BTD]
        h_BTJ = self.of_state(states_BTD)
        last_B = torch.full((len(found),), self.blank, device=h_BTJ.device)
        g_BJ, state = self._step(last_B, None)
        for t in range(h_BTJ.shape[1]):
            goes_B = t < frames_B
            for _ in range(most):
                best_B = self.out(F.relu(h_BTJ[:, t] + g_BJ)).argmax(-1)
                goes_B = goes_B & (best_B != self.blank)
                if not bool(goes_B.any()):
                    break
                for row in goes_B.nonzero().squeeze(1).tolist():
                    found[row].append(int(best_B[row]))
                new_BJ, new = self._step(best_B, state)
                g_BJ = torch.where(goes_B[:, None], new_BJ, g_BJ)
                state = (
                    torch.where(goes_B[:, None], new[0], state[0]),
                    torch.where(goes_B[:, None], new[1], state[1]),
                )
        return found

    def _step(self, last_B: Tensor, state: State | None) -> tuple[Tensor, State]:
        g_B1P, after = self.lstm(self.table(last_B[:, None]), state)
        return self.of_past(g_B1P[:, 0]), after
