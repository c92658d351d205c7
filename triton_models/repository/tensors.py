"""Arrays out of a request and into a response, right under NumPy 1 and NumPy 2. Laid out beside each model.

Triton's Python backend is built against NumPy 1. Under NumPy 2 the `as_numpy()` of an input repeats its first element,
and `pb_utils.Tensor(name, array)` has 0 bytes: it reads fields of NumPy's structures where they no longer are. DLPack
is a layout that both agree on.
"""

import ctypes

import numpy as np
import triton_python_backend_utils as pb_utils

_NAME, _USED = b"dltensor", b"used_dltensor"  # capsules keep a pointer to their name, not a copy

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_rename = ctypes.pythonapi.PyCapsule_SetName
_rename.argtypes = (ctypes.py_object, ctypes.c_char_p)
_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class _HandedOver:
    """An array whose DLPack capsule has no destructor.

    The backend marks a capsule that it has taken by a name that NumPy's destructor does not know: under NumPy 2 that
    prints an error with every response, under NumPy 1 it recurses until the process dies. What the capsule points to
    is freed by the backend, as DLPack asks.
    """

    def __init__(self, array):
        self._array = array

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()

    def __dlpack__(self, **_):
        owned = self._array.__dlpack__()
        pointer = _pointer_of(owned, _NAME)
        _rename(owned, _USED)
        return _capsule(pointer, _NAME, None)


def array_of(request, name):
    """The input `name` of a request. It is a view of the request's memory: use it before the response is sent."""
    return np.from_dlpack(pb_utils.get_input_tensor_by_name(request, name))


def response_of(name, array):
    """A response with the one output `name`."""
    tensor = pb_utils.Tensor.from_dlpack(name, _HandedOver(np.ascontiguousarray(array)))
    return pb_utils.InferenceResponse([tensor])
