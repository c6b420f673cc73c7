"use strict";
// Drives NiiVue: voxels are those of the volumes in this page, whose axes are nearest to RAS+.
(async () => {
  const get = (id) => document.getElementById(id);
  const facts = JSON.parse(get("facts").textContent);
  const PLANES = ["sagittal", "coronal", "axial"]; // of the three axes
  const BRIGHTEST = 0.75; // map value of the last colour

  const tell = (problem) => {
    get("problem").textContent = problem;
    get("problem").hidden = false;
    document.body.dataset.state = "failed";
  };
  if (!document.createElement("canvas").getContext("webgl2")) {
    tell("This page draws with WebGL 2, which this browser does not offer or has switched off.");
    return;
  }

  const nv = new niivue.Niivue({
    backColor: [0, 0, 0, 1],
    crosshairColor: [0.3, 0.76, 1, 0.8],
    crosshairWidth: 0.25,
    crosshairWidthUnit: "percent",
    crosshairGap: 8,
    isRadiologicalConvention: !facts.bscans,
    isOrientationTextVisible: !facts.bscans,
    isForceMouseClickToVoxelCenters: true,
    multiplanarShowRender: 0,
    multiplanarLayout: 0,
    multiplanarPadPixels: 14,
    showAllOrientationMarkers: true,
    dragAndDropEnabled: false,
    viewModeHotKey: "",
    clipPlaneHotKey: "",
    cycleClipPlaneHotKey: "",
    logLevel: "error",
  });

  const volume = async (id, colormap, low, high) => {
    const element = get(id);
    const result = await niivue.NVImage.loadFromBase64({
      base64: element.textContent,
      name: id + ".nii.gz",
      colormap,
      cal_min: low,
      cal_max: high,
    });
    element.remove(); // its text is as large as the volume
    return result;
  };

  const voxel = () => nv.frac2vox(nv.scene.crosshairPos);
  const go = (to) => {
    nv.scene.crosshairPos = nv.vox2frac(to);
    nv.drawScene();
    nv.createOnLocationChange();
  };

  const times = (matrix, [i, j, k]) =>
    matrix.slice(0, 3).map((row) => row[0] * i + row[1] * j + row[2] * k + row[3]);

  const inFile = (axis, index) => {
    const row = facts.toSource.find((r) => r[axis] !== 0);
    return Math.round(row[axis] * index + row[3]);
  };

  const show = () => {
    for (const output of document.querySelectorAll("output")) {
      const input = get(output.htmlFor.value);
      const axis = PLANES.indexOf(input.id);
      output.value = axis < 0 ? input.value : inFile(axis, input.value);
    }
  };

  const located = () => {
    const at = voxel();
    const source = times(facts.toSource, at).map(Math.round);
    // Of oblique volumes NiiVue's own mm lie along the volume's axes.
    const mm = times(facts.affine, at).map((x) => x.toFixed(1));
    const [image, map] = nv.volumes.map((v) => v.getValue(...at));
    const place = facts.bscans ? "" : `\nRAS+ ${mm.join(", ")} mm`;
    get("readout").textContent =
      `voxel ${source.join(", ")} of the file${place}\n` +
      `image ${Number(image.toPrecision(5))}${facts.hounsfield ? " HU" : ""}\nmap ${map.toFixed(3)}`;
    PLANES.forEach((plane, axis) => { get(plane).value = at[axis]; });
    get("here").setAttribute("x", at[2]);
    show();
  };

  const scale = () => {
    const colours = nv.colormap("inferno");
    const stop = (i) => `rgb(${[...colours.slice(4 * i, 4 * i + 3)].join(" ")})`;
    const stops = Array.from({ length: 18 }, (_, n) => stop(15 * n));
    get("scale").style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  };

  const strip = () => {
    const values = facts.slices, limit = facts.sliceThreshold;
    const top = Math.max(...values.map((v) => v ?? 0), limit ?? 0, 1e-6) * 1.1;
    const svg = get("strip");
    const add = (name, attributes) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      svg.append(element);
    };
    svg.setAttribute("viewBox", `0 0 ${values.length} 1`);
    add("rect", { id: "here", class: "here", x: 0, y: 0, width: 1, height: 1 });
    values.forEach((value, index) => {
      if (value === null) return;
      const above = limit !== null && value >= limit;
      add("rect", {
        class: above ? "bar above" : "bar", x: index + 0.1, width: 0.8,
        y: 1 - value / top, height: value / top,
      });
    });
    // What the whole slice shows, as a line across its bar.
    facts.semantic.forEach((value, index) => {
      if (value === null) return;
      const y = Math.max(1 - value / top, 0);
      add("line", { class: "semantic", x1: index, x2: index + 1, y1: y, y2: y });
    });
    if (limit !== null) {
      add("line", { class: "threshold", x1: 0, x2: values.length, y1: 1 - limit / top, y2: 1 - limit / top });
    }
    const under = (event) => {
      const box = svg.getBoundingClientRect();
      const index = Math.floor((event.clientX - box.left) / box.width * values.length);
      return Math.min(Math.max(index, 0), values.length - 1);
    };
    svg.addEventListener("click", (event) => { const at = voxel(); at[2] = under(event); go(at); });
    svg.addEventListener("mousemove", (event) => {
      const index = under(event), value = values[index], whole = facts.semantic[index];
      get("hovered").textContent =
        `Slice ${inFile(2, index)}: ${value === null ? "empty, not scored" : value.toFixed(3)}` +
        (whole === null ? "" : `, by the whole slice ${whole.toFixed(3)}`);
    });
  };

  // Connected parts of the map that reach its own threshold, the highest first.
  const findings = () => {
    const { findings: all, start } = facts, count = all.length;
    let place = all.findIndex(({ at }) => String(at) === String(start)); // -1: at none of them
    const tell = () => {
      const few = `${count} finding${count === 1 ? "" : "s"}`;
      get("finding").textContent = !count
        ? `The map nowhere reaches ${facts.mapThreshold}.`
        : place < 0 ? `${few}, the highest first` : `${place + 1} of ${few}: map ${all[place].value.toFixed(3)}`;
    };
    const move = (to) => {
      if (!count) return;
      place = (to + count) % count;
      go(all[place].at);
      tell();
    };
    const next = () => move(place + 1), previous = () => move(place < 0 ? count - 1 : place - 1);
    for (const id of ["next", "previous"]) get(id).disabled = !count;
    get("next").addEventListener("click", next);
    get("previous").addEventListener("click", previous);
    get("worst").addEventListener("click", () => go(start));
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select")) return;
      if (event.key === "n") next();
      if (event.key === "p") previous();
    });
    tell();
  };

  const controls = () => {
    get("threshold").step = facts.mapStep;
    get("threshold").value = facts.mapThreshold;
    get("threshold").addEventListener("input", (event) => {
      // Half a step lower, so that rounding on the way to the screen loses no voxel.
      nv.volumes[1].cal_min = Number(event.target.value) - facts.mapStep / 2;
      nv.updateGLVolume();
    });
    get("opacity").addEventListener("input", (event) => nv.setOpacity(1, Number(event.target.value)));
    get("planes").addEventListener("input", (event) => nv.setSliceType(Number(event.target.value)));
    PLANES.forEach((plane, axis) => {
      get(plane).max = facts.shape[axis] - 1;
      get(plane).addEventListener("input", (event) => {
        const at = voxel();
        at[axis] = Number(event.target.value);
        go(at);
      });
    });
    const limits = () => {
      nv.volumes[0].cal_min = Number(get("black").value);
      nv.volumes[0].cal_max = Number(get("white").value);
      nv.updateGLVolume();
    };
    const setLimits = ([low, high]) => {
      get("black").value = Number(low.toPrecision(5));
      get("white").value = Number(high.toPrecision(5));
    };
    setLimits(facts.limits);
    const names = Object.keys(facts.windows);
    get("presets").hidden = !names.length;
    for (const name of names) get("window").add(new Option(name, name));
    const first = names.find((name) => String(facts.windows[name]) === String(facts.limits));
    if (first) get("window").value = first;
    get("window").addEventListener("input", (event) => { setLimits(facts.windows[event.target.value]); limits(); });
    for (const id of ["black", "white"]) get(id).addEventListener("input", limits);
    get("controls").addEventListener("input", show);
    get("controls").addEventListener("submit", (event) => event.preventDefault());
  };

  try {
    await nv.attachToCanvas(get("canvas"));
    nv.addVolume(await volume("image", "gray", ...facts.limits));
    const map = await volume("map", "inferno", facts.mapThreshold - facts.mapStep / 2, BRIGHTEST);
    map.colormapType = 2; // colours from 0 on, nothing below cal_min
    map.opacity = Number(get("opacity").value);
    nv.addVolume(map);
    scale();
    strip();
    findings();
    controls();
    nv.onLocationChange = located;
    go(facts.start);
    show();
    document.body.dataset.state = "ready";
  } catch (error) {
    tell(`The study cannot be drawn: ${error.message}`);
  }
})();
