"""The papers' own equations, against which plans and the cost model are held."""
