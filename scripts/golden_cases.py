"""The model sections of the golden cases (see ``make_golden.py``): small, and between them every option there is.

Every value is the model section as deepmd-kit reads it, except that the slots (``sel``) are counted from the frames, and

* ``mean: False`` keeps the environment mean zero (where another would make the energy depend on the order of atoms),
* ``inputs`` tells which frames carry an fparam or a charge_spin,
* ``tasks`` makes a multi-task model with these branches, ``share_fitting`` with one fitting net for all.
"""

from __future__ import annotations

PRECISION = {"precision": "float64", "seed": 1}
REPFLOW = {
    "n_dim": 6,
    "e_dim": 6,
    "a_dim": 4,
    "nlayers": 2,
    "e_rcut": 4.0,
    "e_rcut_smth": 3.4,
    "e_sel": 64,
    "a_rcut": 3.0,
    "a_rcut_smth": 2.5,
    "a_sel": 32,
    "axis_neuron": 3,
    "a_compress_rate": 1,
    "a_compress_e_rate": 2,
    "a_compress_use_split": True,
    "smooth_edge_update": True,
    "edge_init_use_dist": True,
    "use_exp_switch": True,
}
DESCRIPTOR = {"type": "dpa3", "activation_function": "silut:10.0", **PRECISION}
FITTING = {"type": "ener", "neuron": [6, 6], "activation_function": "silut:10.0", "precision": "float64", "seed": 3}
TANH = {**FITTING, "activation_function": "tanh"}

DPA3: dict[str, dict] = {
    "order1": {"repflow": {"update_angle": False}},
    "polynomial": {"repflow": {"use_exp_switch": False}},
    "inverse_edges": {"repflow": {"edge_init_use_dist": False}},
    "uncompressed": {"repflow": {"a_compress_rate": 0}},
    "compress_linear": {"repflow": {"a_compress_use_split": False}},
    "compress_rate2": {"repflow": {"a_compress_rate": 2, "a_compress_e_rate": 3}},
    "messages2": {"repflow": {"n_multi_edge_message": 2}},
    "res_avg": {"repflow": {"update_style": "res_avg"}},
    "res_incr": {"repflow": {"update_style": "res_incr"}},
    "nonsmooth": {"repflow": {"smooth_edge_update": False}},
    "concat": {"descriptor": {"concat_output_tebd": True, "use_tebd_bias": True}},
    "silu_tanh": {"descriptor": {"activation_function": "silu"}, "fitting": {"activation_function": "tanh"}},
    "tanh_gelu": {"descriptor": {"activation_function": "tanh"}, "fitting": {"activation_function": "gelu"}},
    "silut3": {"descriptor": {"activation_function": "custom_silu:3.0"}, "fitting": {"activation_function": "silut:0.5"}},
    "relu_softplus": {"descriptor": {"activation_function": "softplus"}, "fitting": {"activation_function": "sigmoid"}},
    "identity": {"type_map": ["H", "C", "N", "O", "Si", "Cu"]},
    "identity2": {"type_map": ["Cs", "Pb", "I"], "descriptor": {"use_tebd_bias": True}},
    "wide_head": {"fitting": {"neuron": [6, 12, 24], "resnet_dt": True}},
    "no_timestep": {"fitting": {"neuron": [6, 12, 10], "resnet_dt": False}},
    "statistics": {"repflow": {"fix_stat_std": 0.0}},
    "one_layer": {"repflow": {"nlayers": 1, "axis_neuron": 1}},
    "reference_defaults": {
        "repflow": {
            "a_compress_rate": 0,
            "a_compress_e_rate": 1,
            "a_compress_use_split": False,
            "smooth_edge_update": False,
            "edge_init_use_dist": False,
            "use_exp_switch": False,
        },
        "descriptor": {"activation_function": "silu"},
        "fitting": {"activation_function": "tanh"},
    },
    "dynamic_mixed": {
        "repflow": {
            "use_dynamic_sel": True,
            "sel_reduce_factor": 4.0,
            "edge_init_use_dist": False,
            "a_compress_use_split": False,
            "n_multi_edge_message": 2,
        },
        "descriptor": {"activation_function": "silut:3.0", "concat_output_tebd": True},
    },
    "float32": {"descriptor": {"precision": "float32"}, "fitting": {"precision": "float32"}},
    "frozen": {"repflow": {"nlayers": 1, "use_dynamic_sel": True}},
}


SE_A = dict(PRECISION, type="se_e2_a", rcut=4.0, rcut_smth=0.8, neuron=[3, 6, 12], axis_neuron=2)
SE_ATTEN = dict(PRECISION, rcut=4.0, rcut_smth=0.8, neuron=[3, 6, 12], axis_neuron=2, tebd_dim=3, attn=5)
DPA1 = dict(SE_ATTEN, type="dpa1", attn_layer=0, smooth_type_embedding=False)
SMOOTH_STRIP = dict(DPA1, tebd_input_mode="strip", smooth_type_embedding=True, set_davg_zero=False)
DPA2 = dict(PRECISION, type="dpa2")
REPINIT = {"rcut": 4.5, "rcut_smth": 0.6, "neuron": [3, 6], "axis_neuron": 2, "tebd_dim": 3}
THREE = dict(REPINIT, use_three_body=True, three_body_rcut=3.2, three_body_rcut_smth=2.5, three_body_neuron=[2, 4])
HEADS = {"attn1_hidden": 4, "attn1_nhead": 2, "attn2_hidden": 3, "attn2_nhead": 2}
REPFORMER = dict(HEADS, rcut=3.6, rcut_smth=2.8, nlayers=2, g1_dim=7, g2_dim=5, axis_neuron=2)
RESIDUAL = dict(REPFORMER, update_style="res_residual")
EVERY_FRAME = ["periodic", "triclinic_small", "cluster", "isolated"]
WATER = ["O", "H"]

TYPED: dict[str, dict] = {
    "se_a_one_side": {
        "type_map": ["Si", "H", "O"],
        "descriptor": dict(
            dict(SE_A, rcut=3.3, rcut_smth=1.7, neuron=[4, 4, 8], axis_neuron=3, activation_function="gelu"),
            type_one_side=True,
            resnet_dt=True,
            set_davg_zero=True,
            env_protection=0.05,
        ),
        "fitting_net": dict(TANH, resnet_dt=True, activation_function="softplus"),
        "mean": False,
    },
    "se_a_exclude": {
        "type_map": ["N", "Cu", "B"],
        "descriptor": dict(SE_A, type_one_side=False, exclude_types=[[0, 1], [2, 2]], neuron=[2, 4]),
        "fitting_net": dict(TANH, atom_ener=[None, -1.5, 0.0]),
    },
    "se_a_one_element": {
        "type_map": ["Cu"],
        "descriptor": dict(SE_A, type_one_side=False, activation_function="silu"),
        "fitting_net": dict(TANH, numb_fparam=2, default_fparam=[0.3, -1.2]),
        "inputs": {"fparam": ["periodic", "cluster"]},
    },
    "se_a_defaults": {
        "type_map": ["H", "Li"],
        "descriptor": {"type": "se_e2_a", "rcut": 3.0, "rcut_smth": 2.0, "neuron": [5, 5], "axis_neuron": 5},
        "fitting_net": {"neuron": [5, 5]},
        "atom_exclude_types": [1],
        "pair_exclude_types": [[1, 1]],
    },
    "se_a_multitask_heads": {"tasks": ["wb97", "pbe"], "type_map": WATER, "descriptor": SE_A, "fitting_net": TANH},
    "dpa1_attn3_strip": {
        "type_map": ["O", "Zr", "H"],
        "descriptor": dict(
            SMOOTH_STRIP, attn_layer=3, scaling_factor=2.5, exclude_types=[[1, 2]], neuron=[2, 4, 8], resnet_dt=True
        ),
        "fitting_net": TANH,
    },
    "dpa1_attn1_concat": {
        "type_map": ["H", "O"],
        "descriptor": dict(
            dict(DPA1, attn_layer=1, type_one_side=True, use_tebd_bias=True, concat_output_tebd=False, attn_dotr=False),
            normalize=False,
            temperature=0.7,
            activation_function="gelu",
            ln_eps=1e-3,
        ),
        "fitting_net": TANH,
        "mean": False,
    },
    "dpa1_attn2_smooth": {
        "type_map": ["Al", "F"],
        "descriptor": dict(
            dict(DPA1, type="se_atten", attn_layer=2, smooth_type_embedding=True, env_protection=0.2),
            use_econf_tebd=True,
            temperature=1.3,
        ),
        "fitting_net": dict(TANH, numb_fparam=1, atom_ener=[0.5, None]),
        "inputs": {"fparam": EVERY_FRAME},
        "mean": False,
    },
    "dpa1_strip_rough": {
        "type_map": ["F", "Li", "Be"],
        "descriptor": dict(DPA1, attn_layer=1, stripped_type_embedding=True, tebd_dim=6, rcut=3.2),
        "fitting_net": TANH,
        "atom_exclude_types": [0],
        "pair_exclude_types": [[0, 2]],
        "mean": False,
    },
    "dpa1_one_element": {
        "type_map": ["Cu"],
        "descriptor": dict(DPA1, set_davg_zero=False, attn_layer=1),
        "fitting_net": TANH,
    },
    "se_atten_v2": {
        "type_map": ["C", "H", "O", "N"],
        "descriptor": dict(SE_ATTEN, type="se_atten_v2", attn_layer=2, set_davg_zero=False),
        "fitting_net": TANH,
    },
    "dpa1_student": {
        "type_map": WATER,
        "descriptor": dict(SMOOTH_STRIP, type_one_side=True, axis_neuron=6, exclude_types=[[1, 1]]),
        "fitting_net": dict(TANH, resnet_dt=True),
    },
    "dpa1_multitask_case": {
        "tasks": ["wb97", "pbe", "scan"],
        "type_map": WATER,
        "descriptor": dict(DPA1, attn_layer=1, smooth_type_embedding=True),
        "fitting_net": dict(TANH, dim_case_embd=4),
        "share_fitting": True,
        "mean": False,
    },
}

MESSAGE_PASSING: dict[str, dict] = {
    "dpa2_every_term": {
        "type_map": ["O", "Ti", "H"],
        "descriptor": dict(
            DPA2,
            repinit=dict(THREE, tebd_input_mode="strip", type_one_side=True),
            repformer=dict(
                dict(REPFORMER, update_h2=True, update_style="res_incr", use_sqrt_nnei=False, g1_out_conv=False),
                attn2_has_gate=True,
                direct_dist=True,
            ),
            add_tebd_to_repinit_out=True,
        ),
        "fitting_net": TANH,
        "mean": False,
    },
    "dpa2_rough": {
        "type_map": ["H", "O"],
        "descriptor": dict(
            DPA2,
            smooth=False,
            use_tebd_bias=True,
            repinit=dict(THREE, resnet_dt=True),
            repformer=dict(REPFORMER, update_h2=True, update_style="res_avg", g1_out_mlp=False, activation_function="silu"),
        ),
        "fitting_net": TANH,
        "mean": False,
    },
    "dpa2_mean": {
        "type_map": ["N", "Ga"],
        "descriptor": dict(
            dict(DPA2, exclude_types=[[0, 1]], env_protection=0.1, concat_output_tebd=False),
            repinit=dict(THREE, tebd_input_mode="strip", set_davg_zero=False, activation_function="gelu"),
            repformer=dict(
                dict(RESIDUAL, update_residual=0.3, update_residual_init="const", set_davg_zero=False, update_h2=True),
                g1_out_conv=False,
                ln_eps=1e-4,
            ),
        ),
        "fitting_net": TANH,
        "pair_exclude_types": [[0, 0]],
    },
    "dpa2_identity_shape": {
        "type_map": ["Cu"],
        "descriptor": dict(
            DPA2,
            use_econf_tebd=True,
            repinit=dict(REPINIT, set_davg_zero=True),
            repformer=dict(
                dict(RESIDUAL, g1_dim=12, nlayers=1, update_g1_has_conv=False, update_g1_has_attn=False),
                update_g2_has_g1g1=False,
                update_g1_has_drrd=False,
            ),
        ),
        "fitting_net": dict(TANH, numb_fparam=1, default_fparam=[0.7]),
        "inputs": {"fparam": ["cluster"]},
        "mean": False,
    },
    "dpa2_multitask_heads": {
        "tasks": ["pbe", "scan"],
        "type_map": WATER,
        "descriptor": dict(DPA2, repinit=THREE, repformer=dict(RESIDUAL, update_g1_has_attn=False)),
        "fitting_net": TANH,
        "mean": False,
    },
    "dpa3_charge_spin": {
        "type_map": ["H", "Fe", "O"],
        "descriptor": dict(
            dict(DESCRIPTOR, add_chg_spin_ebd=True, default_chg_spin=[-1.0, 2.0], concat_output_tebd=True),
            repflow=dict(REPFLOW, n_multi_edge_message=2, a_compress_rate=2, a_compress_use_split=False),
        ),
        "fitting_net": FITTING,
        "inputs": {"charge_spin": ["periodic", "cluster"]},
        "mean": False,
    },
    "dpa3_exclude": {
        "type_map": ["C", "Mg", "Na", "O"],
        "descriptor": dict(
            dict(DESCRIPTOR, exclude_types=[[0, 1], [3, 3]], env_protection=0.1, use_econf_tebd=True),
            repflow=dict(REPFLOW, use_exp_switch=False, smooth_edge_update=False, edge_init_use_dist=False),
        ),
        "fitting_net": dict(FITTING, numb_fparam=2, atom_ener=[None, None, 1.0, None]),
        "inputs": {"fparam": EVERY_FRAME},
        "atom_exclude_types": [2],
        "pair_exclude_types": [[0, 3]],
        "mean": False,
    },
}

ORDER_DEPENDENT: dict[str, dict] = {
    "order_concat": {"type_map": WATER, "descriptor": dict(DPA1, set_davg_zero=False), "fitting_net": TANH},
    "order_strip": {
        "type_map": WATER,
        "descriptor": dict(SMOOTH_STRIP, smooth_type_embedding=False, attn_layer=1),
        "fitting_net": TANH,
    },
    "order_dpa2": {
        "type_map": WATER,
        "descriptor": dict(DPA2, repinit=dict(REPINIT, set_davg_zero=False), repformer=dict(RESIDUAL, nlayers=1)),
        "fitting_net": TANH,
    },
}

LATER: dict[str, dict] = {
    "dpa3_sequential": {
        "type_map": ["S", "Li"],
        "descriptor": dict(
            DESCRIPTOR, repflow=dict(REPFLOW, nlayers=3, n_dim=4, sequential_update=True, a_compress_use_split=False)
        ),
        "fitting_net": FITTING,
        "mean": False,
    },
    "dpa1_moments": {
        "type_map": ["O", "K", "H"],
        "descriptor": dict(DPA1, lmax=3, type_one_side=True),
        "fitting_net": TANH,
        "mean": False,
    },
    "dpa1_degrees": {
        "type_map": ["F", "K", "Ni"],
        "descriptor": dict(SMOOTH_STRIP, lmax=4, attn_layer=1, exclude_types=[[0, 1]], env_protection=0.1, axis_neuron=3),
        "fitting_net": TANH,
    },
}


def dpa3_section(case: dict) -> dict:
    """Model section of a case of :data:`DPA3`."""
    return {
        "type_map": case.get("type_map", WATER),
        "descriptor": {"repflow": {**REPFLOW, **case.get("repflow", {})}, **DESCRIPTOR, **case.get("descriptor", {})},
        "fitting_net": {**FITTING, **case.get("fitting", {})},
        "mean": False,
    }


# The place of a case in this list is its seed: new ones go to the end.
CASES = {name: dpa3_section(case) for name, case in DPA3.items()} | TYPED | MESSAGE_PASSING | ORDER_DEPENDENT | LATER
FROZEN = ("frozen", "se_a_exclude", "se_atten_v2", "dpa2_mean")
