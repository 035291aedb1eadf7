"""V, M and C against independent references."""

import numpy as np
import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Categorical,
    MixtureSameFamily,
    Normal,
    kl_divergence,
)

from models import controller
from models.inference import ROWS, Encoder, Memory
from models.mdn_rnn import MDNRNN, expected_next, mixture_nll
from models.vae import VAE, sample, to_floats, to_frames


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def frames(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8)


def test_vae_loss_is_summed_error_plus_kl_of_torch_distributions():
    vae, images = VAE(8), frames(5)
    mu, logvar = vae.encode(images)
    torch.manual_seed(1)
    loss, parts = vae.loss(images, tolerance=0.0)
    torch.manual_seed(1)
    decoded = vae.decode(sample(mu, logvar))
    error = ((decoded - to_floats(images)) ** 2).sum() / 5
    kl = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum() / 5
    assert parts["reconstruction"].item() == pytest.approx(error.item(), rel=1e-5)
    assert parts["kl"].item() == pytest.approx(kl.item(), rel=1e-4)
    assert loss.item() == pytest.approx((error + kl).item(), rel=1e-5)


def test_kl_weighs_in_the_loss_what_it_is_told_to():
    vae, images = VAE(8), frames(4)
    for weight in (0.0, 0.25, 1.0):
        torch.manual_seed(0)
        loss, parts = vae.loss(images, tolerance=0.0, kl_weight=weight)
        torch.testing.assert_close(loss, parts["reconstruction"] + weight * parts["kl"])


def test_kl_below_the_tolerance_is_free():
    vae, images = VAE(8), frames(4)
    loss, parts = vae.loss(images, tolerance=100.0)
    assert loss.item() == pytest.approx(parts["reconstruction"].item() + 800.0, rel=1e-6)


def test_frames_survive_the_way_to_floats_and_back():
    images = frames(3)
    assert torch.equal(to_frames(to_floats(images)), images)


def test_a_vae_learns_to_reconstruct():
    vae = VAE(8)
    images = torch.full((16, 64, 64, 3), 128, dtype=torch.uint8)
    images[:8, :, :32] = 255
    optimizer = torch.optim.Adam(vae.parameters(), 1e-3)
    for _ in range(120):
        loss, parts = vae.loss(images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    floats = to_floats(images)
    without_z = (floats - floats.mean(0)).square().sum((1, 2, 3)).mean()
    assert parts["reconstruction"] < 0.2 * without_z


def test_mixture_nll_is_that_of_torch_distributions():
    rnn = MDNRNN(latent_dim=6, hidden=16, mixtures=4)
    z, action = torch.randn(3, 7, 6), torch.rand(3, 7, 3)
    prediction, _ = rnn(z, action)
    following = torch.randn(3, 7, 6)
    reference = MixtureSameFamily(
        Categorical(logits=prediction.log_pi),
        Normal(prediction.mean, prediction.log_sigma.exp()),
    )
    torch.testing.assert_close(
        mixture_nll(prediction, following), -reference.log_prob(following), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(expected_next(prediction), reference.mean)


def test_rnn_loss_counts_real_frames_only_and_matches_its_parts():
    rnn = MDNRNN(latent_dim=6, hidden=16, mixtures=4)
    z, action = torch.randn(2, 9, 6), torch.rand(2, 8, 3)
    reward, terminated = torch.randn(2, 8), torch.zeros(2, 8)
    terminated[0, 4] = 1
    weight = torch.full((2, 8), 1 / 13)
    weight[0, 5:] = 0
    loss, parts, _ = rnn.loss(z, action, reward, terminated, weight)
    spoiled = z.clone()
    spoiled[0, 6:] = 99.0
    again, _, _ = rnn.loss(spoiled, action, reward, terminated, weight)
    assert loss.item() == again.item()
    prediction, _ = rnn(z[:, :-1], action)
    reference = -Bernoulli(logits=prediction.terminated).log_prob(terminated)
    assert parts["terminated_nll"].item() == pytest.approx(
        (reference * weight).sum().item(), rel=1e-5
    )
    assert loss.item() == pytest.approx(sum(p.item() for p in parts.values()) / 8, rel=1e-5)


def test_memory_carried_from_piece_to_piece_is_that_of_the_whole():
    rnn = MDNRNN(latent_dim=6, hidden=16, mixtures=4)
    z, action = torch.randn(2, 10, 6), torch.rand(2, 10, 3)
    whole, _ = rnn(z, action)
    _, state = rnn(z[:, :4], action[:, :4])
    rest, _ = rnn(z[:, 4:], action[:, 4:], state)
    torch.testing.assert_close(rest.mean, whole.mean[:, 4:])


def test_fast_encoder_agrees_with_the_network_and_rows_do_not_meet():
    vae = VAE(32)
    images = frames(ROWS)
    encoder = Encoder(vae)
    mu, logvar = encoder.encode(images)
    with torch.no_grad():
        reference = vae.encode(images)
    torch.testing.assert_close(mu, reference[0], atol=0.02, rtol=0.02)
    torch.testing.assert_close(logvar, reference[1], atol=0.02, rtol=0.02)
    for row in range(ROWS):
        company = frames(ROWS)
        company[ROWS - 1 - row] = images[row]
        assert torch.equal(encoder.encode(company)[0][ROWS - 1 - row], mu[row])
        assert torch.equal(encoder.encode(images[row : row + 1])[0][0], mu[row])


def test_fast_memory_agrees_with_the_lstm_and_rows_do_not_meet():
    rnn = MDNRNN()
    memory, shuffled = Memory(rnn), Memory(rnn)
    z, action = torch.randn(6, ROWS, 32), torch.rand(6, ROWS, 3)
    order = torch.randperm(ROWS)
    for t in range(6):
        memory.remember(z[t], action[t])
        shuffled.remember(z[t, order], action[t, order])
    with torch.no_grad():
        h, _ = rnn.lstm(torch.cat([z, action], -1).transpose(0, 1))
    torch.testing.assert_close(memory.h, h[:, -1], atol=1e-5, rtol=1e-5)
    assert torch.equal(shuffled.h, memory.h[order])
    memory.forget(2)
    assert memory.h[2].abs().sum() == 0
    assert memory.h[3].abs().sum() > 0


def test_controller_has_867_parameters_in_weights_and_bias():
    assert controller.parameter_count(32, 256) == 867
    parameters = np.arange(867.0)
    weights, bias = controller.unpack(parameters)
    assert weights.shape == (3, 288)
    assert bias.shape == (3,)
    assert np.array_equal(controller.pack(weights, bias), parameters)


def test_actions_stay_in_the_action_space():
    action = controller.squash(np.array([[-99.0, -99, -99], [99, 99, 99], [0, 0, 0]]))
    assert np.allclose(action, [[-1, 0, 0], [1, 1, 1], [0, 0.5, 0]])
    assert action.dtype == np.float32


def test_plain_parameters_are_the_same_map():
    rng = np.random.default_rng(0)
    features, mean, sd = rng.normal(size=288), rng.normal(size=288), rng.uniform(0.1, 2, 288)
    parameters = rng.normal(size=(4, 867))
    weights, bias = controller.unpack(parameters)
    scale = controller.FeatureScale(mean, sd)
    plain_weights, plain_bias = controller.unpack(scale.plain(parameters))
    standardised = weights @ ((features - mean) / sd) + bias
    assert np.allclose(plain_weights @ features + plain_bias, standardised, rtol=1e-4, atol=1e-3)
