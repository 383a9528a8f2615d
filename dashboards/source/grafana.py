"""Grafana's JSON, and nothing about defragd: panels, variables, layout.

One function for each kind of panel that we use. Titles, descriptions and units are arguments without a default:
no panel is without them.
"""

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Grafana 10.3 and newer reads all of it; older ones from 10.0 ignore keys that they do not know.
SCHEMA_VERSION = 39
COLUMNS = 24


def query(expr, legend="__auto", instant=False):
    """One query of a panel."""
    return {"expr": expr, "legendFormat": legend, "instant": instant, "range": not instant}


def now(expr, legend="__auto"):
    """An instant query, or one over the whole time range with `$__range`."""
    return query(expr, legend, instant=True)


def steps(base, *more):
    """Thresholds: the colour up to the first value, then (value, colour)."""
    limits = [{"color": base, "value": None}] + [{"color": color, "value": value} for value, color in more]
    return {"mode": "absolute", "steps": limits}


def texts(**words):
    """Words and colours for the values 0 and 1: `texts(_0=("no", "red"), _1=("yes", "green"))`."""
    options = {
        name[1:]: {"color": color, "index": index, "text": text}
        for index, (name, (text, color)) in enumerate(words.items())
    }
    return [{"type": "value", "options": options}]


def words(**texts_of_values):
    """The properties of a table's column that shows words in colour, as `texts` does."""
    return {"mappings": texts(**texts_of_values), "custom.cellOptions": {"type": "color-text"}}


def override(which, by="byName", **properties):
    """The properties of one column or series."""
    listed = [{"id": name, "value": value} for name, value in properties.items()]
    return {"matcher": {"id": by, "options": which}, "properties": listed}


def stat(title, description, unit, *queries, thresholds=None, decimals=None, no_value=None):
    """Current values as large numbers; with several queries each has its name."""
    options = {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "horizontal",
        "reduceOptions": LAST,
        "textMode": "value_and_name" if len(queries) > 1 else "value",
        "wideLayout": True,
    }
    defaults = {"color": {"mode": "thresholds"}, "thresholds": thresholds or steps("green")}
    return _panel("stat", title, description, unit, queries, defaults, options, decimals=decimals, noValue=no_value)


def timeseries(title, description, unit, *queries, thresholds=None, bars=False, low=0, high=None, overrides=()):
    """Lines, or bars for events between two points. Thresholds are drawn as dashed lines."""
    custom = {
        "axisBorderShow": False,
        "axisCenteredZero": False,
        "axisPlacement": "auto",
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 60 if bars else 0,
        "gradientMode": "none",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "pointSize": 5,
        "scaleDistribution": {"type": "linear"},
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if bars else "none"},
        "thresholdsStyle": {"mode": "dashed" if thresholds else "off"},
    }
    defaults = {
        "color": {"mode": "palette-classic"},
        "custom": custom,
        "thresholds": thresholds or steps("green"),
    }
    options = {
        "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel(
        "timeseries", title, description, unit, queries, defaults, options, overrides, min=low, max=high
    )


def states(title, description, expr, legend, **words):
    """A band for each series, coloured by 0 or 1: `_0=("no", "gray")`."""
    defaults = {
        "color": {"mode": "thresholds"},
        "custom": {"fillOpacity": 80, "lineWidth": 0},
        "mappings": texts(**words),
        "thresholds": steps("transparent"),
    }
    options = {
        "alignValue": "left",
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": False},
        "mergeValues": True,
        "rowHeight": 0.8,
        "showValue": "never",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return _panel("state-timeline", title, description, "none", [query(expr, legend)], defaults, options)


def bars(title, description, unit, expr, legend, colors=None, no_value=None, thresholds=None, decimals=None):
    """A horizontal bar for the current value of each series."""
    overrides = [override(name, color={"mode": "fixed", "fixedColor": color}) for name, color in (colors or {}).items()]
    defaults = {"color": {"mode": "thresholds"}, "thresholds": thresholds or steps("green")}
    options = {
        "displayMode": "basic",
        "minVizHeight": 16,
        "minVizWidth": 8,
        "namePlacement": "left",
        "orientation": "horizontal",
        "reduceOptions": LAST,
        "showUnfilled": True,
        "sizing": "auto",
        "valueMode": "color",
    }
    return _panel(
        "bargauge", title, description, unit, [now(expr, legend)], defaults, options, overrides,
        min=0, decimals=decimals, noValue=no_value,
    )


def pairs(title, description, unit, *columns, no_value=None):
    """Bars side by side, a group for each value of the label `name`. Columns are (heading, expression)."""
    defaults = {
        "color": {"mode": "palette-classic"},
        "custom": {
            "axisPlacement": "auto",
            "fillOpacity": 80,
            "gradientMode": "none",
            "lineWidth": 0,
            "thresholdsStyle": {"mode": "off"},
        },
        "thresholds": steps("green"),
    }
    options = {
        "barWidth": 0.9,
        "fullHighlight": False,
        "groupWidth": 0.7,
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "orientation": "horizontal",
        "showValue": "auto",
        "stacking": "none",
        "tooltip": {"mode": "multi", "sort": "none"},
        "xField": "name",
        "xTickLabelMaxLength": 40,
        "xTickLabelRotation": 0,
    }
    queries = [{**now(expr), "format": "table"} for _, expr in columns]
    panel = _panel("barchart", title, description, unit, queries, defaults, options, min=0, noValue=no_value)
    renamed = {_value_field(number, len(columns)): heading for number, (heading, _) in enumerate(columns)}
    organize = {"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": renamed}
    panel["transformations"] = [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]
    return panel


def table(title, description, columns, sort=None, no_value=None):
    """One line for each set of labels. Columns in order, each with the properties of its override:
    (label, heading, properties), or (heading, expression, properties). A heading of None hides the column."""
    values = [column for column in columns if is_value(column)]
    fields = {}  # from fields of Grafana's data frames to headings
    for column in columns:
        if is_value(column):
            fields[_value_field(values.index(column), len(values))] = column[0]
        else:
            fields[column[0]] = column[1]
    overrides = [
        override(column[0] if is_value(column) else column[1], **column[2]) for column in columns if column[2]
    ]
    defaults = {
        "color": {"mode": "thresholds"},
        "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True, "inspect": False},
        "thresholds": steps("green"),
    }
    options = {
        "cellHeight": "sm",
        "showHeader": True,
        "sortBy": [{"desc": True, "displayName": sort}] if sort else [],
    }
    queries = [{**now(expr), "format": "table"} for _, expr, _ in values]
    panel = _panel("table", title, description, "none", queries, defaults, options, overrides, noValue=no_value)
    organize = {
        "excludeByName": {"Time": True} | {field: True for field, heading in fields.items() if heading is None},
        "indexByName": {field: position for position, field in enumerate(fields)},
        "renameByName": {field: heading for field, heading in fields.items() if heading is not None},
    }
    panel["transformations"] = [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]
    return panel


def is_value(column):
    """Whether a table's column is an expression and not a label."""
    return "(" in column[1]


def dashboard(uid, title, description, since, variables, annotations, rows):
    """`rows` is a list of (title, [(width, height, panel)]); panels flow from left to right, 24 wide."""
    panels, y = [], 0
    for heading, content in rows:
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        panels.append({"type": "row", "title": heading, "collapsed": False, "gridPos": place, "panels": []})
        y, x, tallest = y + 1, 0, 0
        for width, height, panel in content:
            if x + width > COLUMNS:
                y, x, tallest = y + tallest, 0, 0
            panels.append({**panel, "gridPos": {"x": x, "y": y, "w": width, "h": height}})
            x, tallest = x + width, max(tallest, height)
        y += tallest
    builtin = {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }
    return {
        "id": None,
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["defragd", "etcd"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "weekStart": "",
        "timezone": "",
        "refresh": "1m",
        "liveNow": False,
        "time": {"from": since, "to": "now"},
        "timepicker": {},
        # The other dashboards with the tag, with the clusters and the time range selected here.
        "links": [
            {
                "type": "dashboards",
                "title": "defragd",
                "tags": ["defragd"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "",
                "url": "",
            }
        ],
        "annotations": {"list": [builtin, *annotations]},
        "templating": {"list": [_datasource(), *variables]},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }


def variable(name, label, description, values):
    """A variable: several values of a label, or all of them."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "description": description,
        "datasource": SOURCE,
        "query": {"query": values, "refId": "StandardVariableQuery"},
        "refresh": 2,
        "sort": 1,
        "regex": "",
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "hide": 0,
        "skipUrlSync": False,
    }


def choice(name, label, description, values):
    """A variable with fixed values; the first is the default."""
    options = [{"selected": value == values[0], "text": value, "value": value} for value in values]
    return {
        "type": "custom",
        "name": name,
        "label": label,
        "description": description,
        "query": ",".join(values),
        "multi": False,
        "includeAll": False,
        "current": options[0],
        "options": options,
        "hide": 0,
        "skipUrlSync": False,
    }


def annotation(name, expr, title, text, tags, color, **more):
    """An annotation in every graph."""
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "expr": expr,
        "iconColor": color,
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": tags,
        **more,
    }


LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}


def _panel(kind, title, description, unit, queries, defaults, options, overrides=(), **more):
    named = [
        {"datasource": SOURCE, "editorMode": "code", "refId": chr(ord("A") + number), **each}
        for number, each in enumerate(queries)
    ]
    given = {name: value for name, value in more.items() if value is not None}
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "fieldConfig": {
            "defaults": {"mappings": [], **defaults, "unit": unit, **given},
            "overrides": list(overrides),
        },
        "options": options,
        "targets": named,
    }


def _value_field(number, of):
    # The transformation `merge` numbers the values only if there are several.
    return "Value" if of == 1 else f"Value #{chr(ord('A') + number)}"


def _datasource():
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "description": "The Prometheus that scrapes defragd.",
        "query": "prometheus",
        "regex": "",
        "multi": False,
        "includeAll": False,
        "options": [],
        "refresh": 1,
        "hide": 0,
        "skipUrlSync": False,
    }
