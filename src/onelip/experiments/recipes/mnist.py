"""Our own network for MNIST at the radius 1.58 of BCOP and CRM."""

from onelip.experiments.classification.recipe import Recipe

RECIPES = (
    Recipe(
        name="mnist",
        about="orthogonal dense network on MNIST, at the radius 1.58 of BCOP and CRM",
        dataset="mnist",
        model="mnist_dense",
        objective={"offset": 3.2, "temperature": 0.5},
        epochs=30,
        batch_size=256,
        lr=3e-3,
        schedule="one-cycle",
        threads=1,
        eps=(0.3, 1.0, 1.58),
    ),
)
